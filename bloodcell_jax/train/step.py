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

from bloodcell_jax.augment import apply_policy
from bloodcell_jax.augment.policies import Policy
from bloodcell_jax.train.class_balance import weighted_cross_entropy
from bloodcell_jax.train.freezing import merge, partition
from bloodcell_jax.train.state import TrainState, apply_gradients

# What a key is for, folded into the seed first. The numbers are part of every run's identity.
INIT_STREAM, AUGMENT_STREAM, DROP_PATH_STREAM = 0, 1, 2


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


def augmented_batch(data: dict, batch: dict, policy: Policy, seed: jax.Array, step: jax.Array) -> jax.Array:
    """Return the pictures of a batch as the network sees them before normalisation, [n, h, w, 3] in [0, 1]."""
    images = to_unit(data["images"][batch["indices"]])
    return apply_policy(policy, step_key(seed, AUGMENT_STREAM, step), batch["slots"], images)


def drop_path_keys(batch: dict, seed: jax.Array, step: jax.Array) -> jax.Array:
    """Return one key per example [n], for the network to fold its blocks into."""
    return jax.vmap(jax.random.fold_in, (None, 0))(step_key(seed, DROP_PATH_STREAM, step), batch["slots"])


def make_train_step(
    model: nn.Module,
    policy: Policy,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    mask: dict,
    first_step: int,
    batch_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    label_smoothing: float,
    ema_decay: float | None,
    axis_name: str | None,
    class_weights: np.ndarray | None = None,
) -> Callable[[TrainState, dict, dict, jax.Array], tuple[TrainState, dict]]:
    """Return the pure `(state, data, batch, seed) -> (state, metrics)` of one stage.

    Args:
      policy: what training pictures go through.
      schedule: learning rate by the stage's finished updates, for the log; `optimizer` holds its own.
      mask: tree of bools, the trainable parameters. Only they are differentiated, so nothing is computed or kept
        for frozen ones.
      first_step: of the stage.
      batch_size: global; the loss of a shard is its sum over this, so sums over shards are exact means.
      axis_name: the axis to reduce over inside `pmap`; None where the compiler sees the global batch.

      class_weights: of the loss, float32 [classes]; None weighs all alike.

    `data` holds images uint8 [N, h, w, 3] and labels int32 [N]; `batch` holds int32 indices into them and the global
    slots, [n] each, and, where predictions are to follow another class prior than training shows, logit_offset
    float32 [n, classes], which counts in the loss alone; `seed` is a uint32 scalar. Metrics are of this step before
    its update, over the global batch.
    """

    def loss_and_hits(trainable, frozen, images, labels, keys, logit_offset):
        variables = {"params": merge(trainable, frozen)}
        logits, _ = model.apply(variables, normalise(images, mean, std), train=True, keys=keys)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
        losses = weighted_cross_entropy(logits + logit_offset, targets, class_weights)
        return losses.sum() / batch_size, (logits.argmax(-1) == labels).sum()

    def train_step(state, data, batch, seed):
        images = augmented_batch(data, batch, policy, seed, state.step)
        labels = data["labels"][batch["indices"]]
        keys = drop_path_keys(batch, seed, state.step)
        trainable, frozen = partition(state.params, mask)
        grad_fn = jax.value_and_grad(loss_and_hits, has_aux=True)
        (loss, hits), gradients = grad_fn(trainable, frozen, images, labels, keys, batch.get("logit_offset", 0.0))
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
