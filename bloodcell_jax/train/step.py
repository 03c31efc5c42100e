"""One training step as a pure function, the same under every backend.

Randomness is a function of (seed, stream, step, global slot) alone, so a step draws the same augmentation and the
same drop path for an example wherever its slot is computed.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from bloodcell_jax.augment.policies import VIEWS, Augmentation, apply_mix, apply_policy, apply_views
from bloodcell_jax.train.freezing import merge, partition
from bloodcell_jax.train.losses import classification_losses
from bloodcell_jax.train.state import TrainState, apply_gradients

# What a key is for, folded into the seed first. The numbers are part of every run's identity.
INIT_STREAM, AUGMENT_STREAM, DROP_PATH_STREAM, MIX_STREAM = 0, 1, 2, 3


def step_key(seed: int | jax.Array, stream: int, step: int | jax.Array) -> jax.Array:
    """Return the key of one stream in one step; folding a slot in gives an example its own.

    Threefry by name: the same draws on every platform, whatever JAX's default becomes.
    """
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.fold_in(jax.random.fold_in(key, stream), step)


def to_unit(images: jax.Array) -> jax.Array:
    """Return uint8 pictures as float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Return pictures [n, h, w, 3] in [0, 1] as the network takes them: per channel, minus mean, over std."""
    return (images - jnp.asarray(mean)) / jnp.asarray(std)


def augmented_batch(data: dict, batch: dict, augmentation: Augmentation, seed: jax.Array, step: jax.Array) -> jax.Array:
    """Return the pictures of a batch in [0, 1] before mixing: [n, h, w, 3], or [n, 3, h, w, 3] where it has views."""
    images = to_unit(data["images"][batch["indices"]])
    apply = apply_views if augmentation.views else apply_policy
    key = step_key(seed, AUGMENT_STREAM, step)
    return apply(augmentation.policy, key, batch["slots"], images, block=augmentation.block)


def drop_path_keys(batch: dict, seed: jax.Array, step: jax.Array, *, views: bool = False) -> jax.Array:
    """Return one key per picture, for the network to fold its blocks into: [n], or [3 * n] where there are views."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key(seed, DROP_PATH_STREAM, step), batch["slots"])
    if not views:
        return keys
    return jax.vmap(lambda key: jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(VIEWS)))(keys).reshape(-1)


def make_train_step(
    model: nn.Module,
    augmentation: Augmentation,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    mask: dict,
    first_step: int,
    batch_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    label_smoothing: float,
    jsd: float | None,
    ema_decay: float | None,
    axis_name: str | None,
    class_weights: np.ndarray | None = None,
) -> Callable[[TrainState, dict, dict, jax.Array], tuple[TrainState, dict]]:
    """Return the pure `(state, data, batch, seed) -> (state, metrics)` of one stage.

    Args:
      augmentation: what training pictures go through.
      schedule: learning rate by the stage's finished updates, for the log; `optimizer` holds its own.
      mask: tree of bools, the trainable parameters. Only they are differentiated, so nothing is computed or kept
        for frozen ones.
      first_step: of the stage.
      batch_size: global; the loss of a shard is its sum over this, so sums over shards are exact means.
      jsd: weight of AugMix's consistency loss where the augmentation has views.
      axis_name: the axis to reduce over inside `pmap`; None where the compiler sees the global batch.
      class_weights: of the loss, float32 [classes]; None weighs all alike.

    `data` holds images uint8 [N, h, w, 3] and labels int32 [N]; `batch` holds int32 indices into them and the global
    slots, [n] each, and, where predictions are to follow another class prior than training shows, logit_offset
    float32 [n, classes], which counts in the loss alone; `seed` is a uint32 scalar. Metrics are of this step before
    its update, over the global batch.
    """

    def loss_and_hits(trainable, frozen, images, targets, keys, logit_offset):
        variables = {"params": merge(trainable, frozen)}
        logits, _ = model.apply(variables, normalise(images, mean, std), train=True, keys=keys)
        losses, shown = classification_losses(
            logits, targets, jsd, class_weights=class_weights, logit_offset=logit_offset
        )
        return losses.sum() / batch_size, (shown.argmax(-1) == targets.argmax(-1)).sum()

    def train_step(state, data, batch, seed):
        slots = batch["slots"]
        images = augmented_batch(data, batch, augmentation, seed, state.step)
        labels = jax.nn.one_hot(data["labels"][batch["indices"]], model.num_classes)
        targets = optax.smooth_labels(labels, label_smoothing)
        mix_key = step_key(seed, MIX_STREAM, state.step)
        images, targets = apply_mix(augmentation.mix, mix_key, slots, images, targets, block=augmentation.block)
        # The views of a picture are neighbours, so a batch that is cut over devices stays where it is.
        images = images.reshape(-1, *images.shape[-3:])
        keys = drop_path_keys(batch, seed, state.step, views=augmentation.views)
        trainable, frozen = partition(state.params, mask)
        grad_fn = jax.value_and_grad(loss_and_hits, has_aux=True)
        (loss, hits), gradients = grad_fn(trainable, frozen, images, targets, keys, batch.get("logit_offset", 0.0))
        if axis_name is not None:
            loss, hits, gradients = jax.lax.psum((loss, hits, gradients), axis_name)
        new_state, norms = apply_gradients(state, gradients, optimizer, mask, ema_decay)
        metrics = {
            "train/loss": loss,
            "train/accuracy": hits / batch_size,
            "lr": schedule(state.step - first_step),
            "bad_steps": new_state.bad_steps,
            **norms,
        }
        return new_state, metrics

    return train_step
