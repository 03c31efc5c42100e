"""One training step as a pure function, the same under every backend.

Randomness is a function of (seed, purpose, step, global slot) alone. So a step draws the same augmentation and the
same drop path for an example wherever its slot is computed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from bloodcell_jax.augment.assignment import slot_keys
from bloodcell_jax.augment.policies import VIEWS, Augmentation, apply_mix, apply_policy, apply_views
from bloodcell_jax.models.input import normalize, resize, to_unit
from bloodcell_jax.models.network import Network, Params
from bloodcell_jax.train.freezing import merge
from bloodcell_jax.train.guard import Guard
from bloodcell_jax.train.losses import Loss, classification_losses
from bloodcell_jax.train.optimizers import updates_made
from bloodcell_jax.train.packing import PackedParams
from bloodcell_jax.train.plateaus import rate_scale
from bloodcell_jax.train.randomness import AUGMENT, DROP_PATH, MIX, step_key
from bloodcell_jax.train.state import EmaDecay, TrainState, apply_gradients

# What a step takes beside its state, by name: whole datasets, batches of them, and what it says of itself.
Data = dict[str, Any]
Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


def training_batch(
    data: Data,
    batch: Batch,
    seed: ArrayLike,
    step: ArrayLike,
    *,
    image_size: int,
    augmentation: Augmentation,
    num_classes: int,
    label_smoothing: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return what the network is trained on in one step: images, targets, and a key for each image's drop path.

    Args:
      data: images (`ResidentImages` of N) and labels int32 [N] if the whole dataset is on the device, else empty.
      batch: int32 indices into them, or images uint8 [n, h, w, 3] and labels int32 [n] themselves; and the global
        slots, int32 [n].
      seed: uint32 [].
      step: int32 [].
      image_size: side of the images that the network is shown, in pixels; at most that of the images given.

    Returns:
      Images [n, image_size, image_size, 3] in [0, 1], targets [n, num_classes] and keys [n]. If there are views, images
      and keys have 3 * n rows, and the views of an image are neighbors.
    """
    slots, block = batch["slots"], augmentation.block
    images, labels = _examples(data, batch)
    images = resize(to_unit(images), image_size)
    apply = apply_views if augmentation.views else apply_policy
    images = apply(augmentation.policy, step_key(seed, AUGMENT, step), slots, images, block=block)
    targets = _targets(labels, num_classes, label_smoothing)
    keys = slot_keys(step_key(seed, DROP_PATH, step), slots)
    if augmentation.views:
        keys = jax.vmap(slot_keys, (0, None))(keys, jnp.arange(VIEWS))
        return images.reshape(-1, *images.shape[2:]), targets, keys.reshape(-1)
    images, targets = apply_mix(augmentation.mix, step_key(seed, MIX, step), slots, images, targets, block=block)
    return images, targets, keys


def _examples(data: Data, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Return the images and labels of a batch: those it brings, or those it points at."""
    if "images" in batch:
        return batch["images"], batch["labels"]
    return data["images"].gather(batch["indices"]), data["labels"][batch["indices"]]


def _targets(labels: jax.Array, num_classes: int, label_smoothing: float) -> jax.Array:
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), label_smoothing)


@dataclass(frozen=True)
class StepInput:
    """What the network is given in a step, and how it answers: all that differs between kinds of steps.

    Attributes:
      load: (data, batch, seed, step) -> (inputs, targets float32 [n, classes]).
      logits: (params, inputs) -> float32 [n, classes], or [views * n, classes].
    """

    load: Callable[[Data, Batch, ArrayLike, ArrayLike], tuple[Any, jax.Array]]
    logits: Callable[[Params, Any], jax.Array]


def images_input(
    model: Network,
    augmentation: Augmentation,
    *,
    image_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    label_smoothing: float,
) -> StepInput:
    """Return the input of a step on freshly augmented images; `data` and `batch` are those of `training_batch`."""

    def load(data: Data, batch: Batch, seed: ArrayLike, step: ArrayLike) -> tuple[Any, jax.Array]:
        images, targets, keys = training_batch(
            data,
            batch,
            seed,
            step,
            image_size=image_size,
            augmentation=augmentation,
            num_classes=model.num_classes,
            label_smoothing=label_smoothing,
        )
        return (images, keys), targets

    def logits(params: Params, inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
        images, keys = inputs
        return model.apply({"params": params}, normalize(images, mean, std), train=True, keys=keys)[0]

    return StepInput(load, logits)


def features_input(model: Network, *, label_smoothing: float) -> StepInput:
    """Return the input of a step on features that `extract_features` gave before.

    `data` holds features float32 [rows, c]; `batch` holds int32 [n] rows of them, labels and global slots.
    """

    def load(data: Data, batch: Batch, seed: ArrayLike, step: ArrayLike) -> tuple[Any, jax.Array]:
        keys = slot_keys(step_key(seed, DROP_PATH, step), batch["slots"])
        targets = _targets(batch["labels"], model.num_classes, label_smoothing)
        return (data["features"][batch["rows"]], keys), targets

    def logits(params: Params, inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
        features, keys = inputs
        return model.apply({"params": params}, features, train=True, keys=keys, method="classify")[0]

    return StepInput(load, logits)


def make_feature_extraction(
    model: Network,
    augmentation: Augmentation,
    *,
    image_size: int,
    seed: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Callable[[Params, jax.Array, jax.Array, jax.Array], jax.Array]:
    """Return the pure `(params, images uint8 [n, h, w, 3], slots, step) -> features [n, c]` of training images."""

    def extract_features(params: Params, images: jax.Array, slots: jax.Array, step: jax.Array) -> jax.Array:
        batch = {"images": images, "labels": np.zeros(len(images), np.int32), "slots": slots}
        inputs, _, keys = training_batch(
            {},
            batch,
            np.uint32(seed),
            step,
            image_size=image_size,
            augmentation=augmentation,
            num_classes=model.num_classes,
            label_smoothing=0.0,
        )
        inputs = normalize(inputs, mean, std)
        return model.apply({"params": params}, inputs, train=True, keys=keys, method="extract")[0]

    return extract_features


Gradients = Callable[[PackedParams, Data, Batch, jax.Array, jax.Array], tuple[jax.Array, jax.Array, dict]]
TrainStep = Callable[[TrainState, Data, Batch, jax.Array], tuple[TrainState, Metrics]]


def make_gradients(
    step_input: StepInput,
    *,
    batch_size: int,
    accumulate: int,
    jsd: float | None,
    loss: Loss,
    axis_name: str,
    class_weights: np.ndarray | None = None,
) -> Gradients:
    """Return the pure `(packed parameters, data, batch, seed, step) -> (loss, hits, packed gradients)` of a stage.

    Args:
      step_input: what the network is given of data and batch.
      batch_size: global; the loss of a shard is its sum over this, so sums over shards are exact means.
      accumulate: parts in which a shard is differentiated; their sums are those of the whole shard, up to rounding.
      jsd: weight of AugMix's consistency loss if the augmentation has views.
      loss: as `create_loss` returns it.
      axis_name: the axis of the devices; each takes its rows of the global batch, and all get the sums over it.
      class_weights: weights in the loss, float32 [classes]; None weighs all alike.

    If predictions are to follow another class prior than training shows, `batch` also holds logit_offset float32
    [n, classes]; it counts in the loss alone. Only what is packed as trainable is differentiated, so nothing is
    computed or kept for frozen parameters.
    """

    def loss_and_hits(trainable, frozen, inputs, targets, logit_offset):
        logits = step_input.logits(merge(trainable, frozen), inputs)
        offset = 0.0 if logit_offset is None else logit_offset
        losses, shown = classification_losses(
            logits, targets, jsd, loss, class_weights=class_weights, logit_offset=offset
        )
        # As float32, exact up to 16 million, the hits travel with the gradients: one all-reduce a step, not two.
        hits = (shown.argmax(-1) == targets.argmax(-1)).sum(dtype=jnp.float32)
        return losses.sum() / batch_size, hits

    def gradients_of(packed: PackedParams, data: Data, batch: Batch, seed: jax.Array, step: jax.Array) -> tuple:
        inputs, targets = step_input.load(data, batch, seed, step)
        packing, frozen = packed.packing, packed.frozen
        trainable = packing.unpack(packed.trainable)
        gradient = partial(jax.value_and_grad(loss_and_hits, has_aux=True), trainable, frozen)
        (loss, hits), gradients = sum_over_parts(gradient, accumulate, inputs, targets, batch.get("logit_offset"))
        return jax.lax.psum((loss, hits, packing.pack(gradients)), axis_name)

    return gradients_of


def make_train_step(
    gradients_of: Gradients,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    batch_size: int,
    guard: Guard,
    ema_decay: EmaDecay | None,
) -> TrainStep:
    """Return the pure `(state, data, batch, seed) -> (state, metrics)` of one stage.

    Args:
      gradients_of: as `make_gradients` returns it.
      schedule: learning rate by the stage's finished updates, for the log; `optimizer` holds its own.
      batch_size: global.
      guard: tells which updates are skipped.
      ema_decay: as `create_ema_decay` returns it; None: there is no average.

    Metrics describe this step before its update, over the global batch.
    """

    def train_step(state: TrainState, data: Data, batch: Batch, seed: jax.Array) -> tuple[TrainState, Metrics]:
        loss, hits, gradients = gradients_of(state.packed, data, batch, seed, state.step)
        new_state, norms = apply_gradients(state, loss, gradients, optimizer, guard, ema_decay)
        rate, scale = schedule(updates_made(state.opt_state)), rate_scale(state.opt_state)
        metrics = {
            "train/loss": loss,
            "train/accuracy": hits / batch_size,
            "lr": rate if scale is None else rate * scale,
            "bad_steps": new_state.guard.bad_steps,
            "skipped_steps": new_state.guard.skipped_steps,
            **norms,
        }
        return new_state, metrics

    return train_step


def sum_over_parts(function: Callable, parts: int, *rows: Any) -> Any:
    """Return the sum of what `function` returns for each of some equal parts of rows.

    Only one part is worked on at a time, so memory is needed for one.

    Args:
      parts: divides the rows.
      rows: trees of arrays [parts * n, ...], each with an n of its own: the views of an image are rows next to each
        other.
    """
    if parts == 1:
        return function(*rows)
    cut = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), rows)

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(*part)), None

    first = jax.tree.map(lambda x: x[0], cut)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *first))
    return jax.lax.scan(add, zeros, cut)[0]
