"""Forward passes over many images, every one of them exactly once."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bloodcell_jax.augment.geometry import SYMMETRIES, symmetry
from bloodcell_jax.devices.parallel import ROWS, WHOLE, DataParallel
from bloodcell_jax.evaluate.explain.grad_cam import grad_cam
from bloodcell_jax.evaluate.image_batches import ImageBatches, Images
from bloodcell_jax.evaluate.temperature import softmax
from bloodcell_jax.models.input import normalize, to_unit
from bloodcell_jax.models.network import Features, Network, Params

# The map whose mean and spread tell noise, blank fields and textures from cells: the maps before it take a darker or
# compressed cell for unknown, and those after it have forgotten what is not needed to tell classes (docs/decisions.md).
_INNER_MAP = "stage_1"
# The map that Grad-CAM explains: the last one that still has positions.
_LAST_MAP = "stage_3"

# Images uint8 [n, h, w, 3] and their places in the pass, int32 [n] -> the changed images, on the devices.
Change = Callable[[jax.Array, jax.Array], jax.Array]


class Outputs(NamedTuple):
    """What the network says of images.

    Attributes:
      logits: float32 [n, classes].
      pooled: what the head takes, float32 [n, channels].
      appearance: mean and standard deviation of each channel of an inner map, float32 [n, d].
    """

    logits: np.ndarray
    pooled: np.ndarray
    appearance: np.ndarray


@functools.lru_cache(maxsize=8)
def _programs(
    model: Network, mean: tuple[float, ...], std: tuple[float, ...], parallel: DataParallel, tta: bool
) -> tuple[Callable, Callable]:
    """Return the jitted forward pass and Grad-CAM of a network; the arguments are those of `Evaluator`.

    The same arguments give the same functions, so that the folds of a cross-validation, and the models of one run, are
    traced once.
    """

    def forward(params: Params, images: jax.Array) -> tuple[jax.Array, ...]:
        logits, features = model.apply({"params": params}, normalize(to_unit(images), mean, std), train=False)
        pooled = features["pooled"].astype(jnp.float32)
        return logits.astype(jnp.float32), pooled, _appearance(features), features[_LAST_MAP]

    def forward_all_orientations(params: Params, images: jax.Array) -> tuple[jax.Array, ...]:
        logits, *others = forward(params, images)

        def add(number: int, total: jax.Array) -> jax.Array:
            return total + jax.nn.softmax(forward(params, jax.vmap(symmetry, (0, None))(images, number))[0])

        total = jax.lax.fori_loop(1, SYMMETRIES, add, jax.nn.softmax(logits))
        # The softmax is that of the mean, and the energy, by which images are known, that of the image as it is.
        return jnp.log(total / SYMMETRIES) + jax.nn.logsumexp(logits, axis=-1, keepdims=True), *others

    whole, rows = parallel.replicated, parallel.split_rows
    each = parallel.on_each_device(forward_all_orientations if tta else forward, (WHOLE, ROWS), (ROWS,) * 4)
    return (
        jax.jit(each, in_shardings=(whole, rows), out_shardings=whole),
        jax.jit(functools.partial(grad_cam, model), out_shardings=whole),
    )


class Evaluator:
    """What a network says of images, in batches of one compiled shape, each cut over the devices.

    Attributes:
      batch_size: images of one forward pass, a multiple of the devices.
      forward: that pass, jitted: (params, images uint8 [batch, h, w, 3]) -> the arrays of `Outputs`, and the last map.
    """

    def __init__(
        self,
        model: Network,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        batch_size: int,
        parallel: DataParallel,
        tta: bool = False,
    ):
        """Compile nothing yet.

        Args:
          model: the network.
          mean, std: of the images in [0, 1], per channel.
          batch_size: images of one forward pass, rounded up to a multiple of the devices.
          parallel: the devices.
          tta: test-time augmentation: the logits give the mean probabilities of an image in its 8 orientations, and
            have the sum of exponentials of the image as it is. The other outputs are those of the image as it is.
        """
        devices = parallel.mesh.size
        self.batch_size = -(-batch_size // devices) * devices
        self._parallel, self._batches = parallel, ImageBatches(parallel, self.batch_size)
        self.forward, self._grad_cam = _programs(model, mean, std, parallel, tta)

    def outputs(
        self,
        params: Params,
        images: Images,
        indices: np.ndarray,
        *,
        change: Change | None = None,
        before_batch: Callable[[], None] = lambda: None,
    ) -> Iterator[Outputs]:
        """Yield the outputs of the images at `indices`, batch by batch; what pads the last batch is dropped.

        Args:
          params: replicated global arrays.
          images, indices: those of `ImageBatches.open`.
          change: what happens to the images first; None: nothing.
          before_batch: is called before each batch; what it raises ends the pass.
        """
        for arrays, count in self._passes(params, images, indices, before_batch, change):
            yield _to_host(arrays[:-1], count)

    def logits_of_changes(
        self, params: Params, images: Images, indices: np.ndarray, changes: Sequence[Change]
    ) -> Iterator[tuple[slice, int, np.ndarray]]:
        """Yield (rows of `indices`, number of the change, logits float32 [m, classes]): all changes, batch by batch.

        The images are read once, and the devices compute the next change meanwhile. The arguments are those of
        `outputs`.
        """
        running = None
        with self._batches.open(images, indices) as batches:
            for number, batch in enumerate(batches):
                places, count = self._places(number), self._count(number, indices)
                rows = slice(number * self.batch_size, number * self.batch_size + count)
                for which, change in enumerate(changes):
                    done, running = running, (rows, which, self.forward(params, change(batch, places))[0])
                    if done is not None:
                        yield _logits_to_host(*done)
        if running is not None:
            yield _logits_to_host(*running)

    def outputs_and_grad_cam(
        self,
        params: Params,
        images: Images,
        indices: np.ndarray,
        classes: np.ndarray | None = None,
        *,
        before_batch: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[Outputs, np.ndarray]]:
        """Yield the outputs of images, and where each speaks for a class: see `grad_cam`, float32 [m, h, w].

        Args:
          params, images, indices, before_batch: those of `outputs`.
          classes: whose logit is explained, int [n]; None: that of the predicted class.
        """
        start = 0
        for (*arrays, last_map), count in self._passes(params, images, indices, before_batch):
            outputs = _to_host(arrays, count)
            chosen = outputs.logits.argmax(axis=1) if classes is None else classes[start : start + count]
            padded = np.pad(chosen, (0, self.batch_size - count)).astype(np.int32)
            yield outputs, np.asarray(self._grad_cam(params, last_map, padded))[:count]
            start += count

    def _passes(
        self,
        params: Params,
        images: Images,
        indices: np.ndarray,
        before_batch: Callable[[], None],
        change: Change | None = None,
    ) -> Iterator[tuple[Sequence[jax.Array], int]]:
        """Yield what `forward` returns of each batch, and how many of its images are no padding."""
        with self._batches.open(images, indices) as batches:
            for number, batch in enumerate(batches):
                before_batch()
                changed = batch if change is None else change(batch, self._places(number))
                yield self.forward(params, changed), self._count(number, indices)

    def _places(self, number: int) -> jax.Array:
        first = number * self.batch_size
        return self._parallel.global_rows(np.arange(first, first + self.batch_size, dtype=np.int32))

    def _count(self, number: int, indices: np.ndarray) -> int:
        return min(self.batch_size, len(indices) - number * self.batch_size)

    def predict(
        self,
        params: Params,
        images: Images,
        indices: np.ndarray,
        *,
        before_batch: Callable[[], None] = lambda: None,
    ) -> np.ndarray:
        """Return probabilities at temperature 1, float64 [n, classes]; the arguments are those of `outputs`."""
        batches = self.outputs(params, images, indices, before_batch=before_batch)
        return np.concatenate([softmax(batch.logits) for batch in batches])

    def outputs_as_they_come(self, params: Params, batches: Iterable[np.ndarray]) -> Iterator[Outputs]:
        """Yield what `outputs` yields, of batches of images; the next one is awaited while the devices compute one.

        Args:
          params: replicated global arrays.
          batches: images uint8 [m, h, w, 3] in this process, 1 to `batch_size` of them.
        """
        running = None
        for images in batches:
            padding = [(0, self.batch_size - len(images)), *[(0, 0)] * 3]
            placed = self._parallel.global_batch(np.pad(images, padding, mode="edge"))
            done = None if running is None else _to_host(*running)
            *arrays, _ = self.forward(params, placed)
            running = arrays, len(images)
            if done is not None:
                yield done
        if running is not None:
            yield _to_host(*running)


def _to_host(outputs: Sequence[jax.Array], count: int) -> Outputs:
    """Return the outputs of the first `count` images of a batch."""
    return Outputs(*(np.asarray(output)[:count] for output in jax.device_get(outputs)))


def _logits_to_host(rows: slice, which: int, logits: jax.Array) -> tuple[slice, int, np.ndarray]:
    return rows, which, np.asarray(logits)[: rows.stop - rows.start]


def _appearance(features: Features) -> jax.Array:
    inner = features[_INNER_MAP].astype(jnp.float32)
    return jnp.concatenate([inner.mean((1, 2)), inner.std((1, 2))], axis=1)
