"""One training step as a pure function, the same under every backend.

Randomness is a function of (seed, stream, step, global slot) alone, so a step draws the same augmentation and the
same drop path for an example wherever its slot is computed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from bloodcell_jax.augment.assignment import slot_keys
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


def training_batch(
    data: dict,
    batch: dict,
    seed: jax.Array,
    step: jax.Array,
    *,
    augmentation: Augmentation,
    num_classes: int,
    label_smoothing: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return what the network is trained on in one step: pictures, targets, and a key for each picture's drop path.

    Args:
      data: images uint8 [N, h, w, 3] and labels int32 [N] where the whole set is on the device, else empty.
      batch: int32 indices into them, or images uint8 [n, h, w, 3] and labels int32 [n] themselves; and the global
        slots, int32 [n].
      seed: uint32 [].
      step: int32 [].

    Returns:
      Pictures [n, h, w, 3] in [0, 1], targets [n, num_classes] and keys [n]; where there are views, pictures and keys
      have 3 * n rows, the views of a picture next to each other.
    """
    slots, block = batch["slots"], augmentation.block
    images, labels = _examples(data, batch)
    images = to_unit(images)
    apply = apply_views if augmentation.views else apply_policy
    images = apply(augmentation.policy, step_key(seed, AUGMENT_STREAM, step), slots, images, block=block)
    targets = _targets(labels, num_classes, label_smoothing)
    keys = slot_keys(step_key(seed, DROP_PATH_STREAM, step), slots)
    if augmentation.views:
        keys = jax.vmap(slot_keys, (0, None))(keys, jnp.arange(VIEWS))
        return images.reshape(-1, *images.shape[2:]), targets, keys.reshape(-1)
    images, targets = apply_mix(augmentation.mix, step_key(seed, MIX_STREAM, step), slots, images, targets, block=block)
    return images, targets, keys


def _examples(data: dict, batch: dict) -> tuple[jax.Array, jax.Array]:
    """Return the pictures and labels of a batch: those it brings, or those it points at."""
    if "images" in batch:
        return batch["images"], batch["labels"]
    return data["images"][batch["indices"]], data["labels"][batch["indices"]]


def _targets(labels: jax.Array, num_classes: int, label_smoothing: float) -> jax.Array:
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), label_smoothing)


@dataclass(frozen=True)
class StepInput:
    """What the network is given in a step, and how it answers: all that differs between kinds of steps.

    Attributes:
      prepare: (data, batch, seed, step) -> (inputs, targets float32 [n, classes]).
      logits: (params, inputs) -> float32 [n, classes], or [views * n, classes].
    """

    prepare: Callable[[dict, dict, jax.Array, jax.Array], tuple[Any, jax.Array]]
    logits: Callable[[Any, Any], jax.Array]


def pictures_input(
    model: nn.Module,
    augmentation: Augmentation,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    label_smoothing: float,
) -> StepInput:
    """Return the input of a step on freshly augmented pictures; `data` and `batch` are those of `training_batch`."""

    def prepare(data, batch, seed, step):
        images, targets, keys = training_batch(
            data,
            batch,
            seed,
            step,
            augmentation=augmentation,
            num_classes=model.num_classes,
            label_smoothing=label_smoothing,
        )
        return (images, keys), targets

    def logits(params, inputs):
        images, keys = inputs
        return model.apply({"params": params}, normalise(images, mean, std), train=True, keys=keys)[0]

    return StepInput(prepare, logits)


def features_input(model: nn.Module, *, label_smoothing: float) -> StepInput:
    """Return the input of a step on features that `model.extract` gave before.

    `data` holds features float32 [rows, c], and `batch` int32 [n] rows of them and labels.
    """

    def prepare(data, batch, seed, step):
        return data["features"][batch["rows"]], _targets(batch["labels"], model.num_classes, label_smoothing)

    def logits(params, features):
        return model.apply({"params": params}, features, method="classify")[0]

    return StepInput(prepare, logits)


def make_train_step(
    step_input: StepInput,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    mask: dict,
    first_step: int,
    batch_size: int,
    jsd: float | None,
    ema_decay: float | None,
    axis_name: str,
    class_weights: np.ndarray | None = None,
) -> Callable[[TrainState, dict, dict, jax.Array], tuple[TrainState, dict]]:
    """Return the pure `(state, data, batch, seed) -> (state, metrics)` of one stage.

    Args:
      step_input: what the network is given of data and batch.
      schedule: learning rate by the stage's finished updates, for the log; `optimizer` holds its own.
      mask: tree of bools, the trainable parameters. Only they are differentiated, so nothing is computed or kept
        for frozen ones.
      first_step: of the stage.
      batch_size: global; the loss of a shard is its sum over this, so sums over shards are exact means.
      jsd: weight of AugMix's consistency loss where the augmentation has views.
      axis_name: the axis of the devices, each of which runs the step on its rows of the global batch.
      class_weights: of the loss, float32 [classes]; None weighs all alike.

    Where predictions are to follow another class prior than training shows, `batch` also holds logit_offset float32
    [n, classes], which counts in the loss alone. Metrics are of this step before its update, over the global batch.
    """

    def loss_and_hits(trainable, frozen, inputs, targets, logit_offset):
        logits = step_input.logits(merge(trainable, frozen), inputs)
        losses, shown = classification_losses(
            logits, targets, jsd, class_weights=class_weights, logit_offset=logit_offset
        )
        # As float32, exact up to 16 million, the hits travel with the gradients: one all-reduce a step, not two.
        hits = (shown.argmax(-1) == targets.argmax(-1)).sum(dtype=jnp.float32)
        return losses.sum() / batch_size, hits

    def train_step(state, data, batch, seed):
        inputs, targets = step_input.prepare(data, batch, seed, state.step)
        trainable, frozen = partition(state.params, mask)
        grad_fn = jax.value_and_grad(loss_and_hits, has_aux=True)
        (loss, hits), gradients = grad_fn(trainable, frozen, inputs, targets, batch.get("logit_offset", 0.0))
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
