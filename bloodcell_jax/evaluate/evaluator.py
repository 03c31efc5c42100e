"""Forward passes over many images, every one of them exactly once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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
    ):
        devices = parallel.mesh.size
        self.batch_size = -(-batch_size // devices) * devices
        self._parallel, self._batches = parallel, ImageBatches(parallel, self.batch_size)

        def forward(params: Params, images: jax.Array) -> tuple[jax.Array, ...]:
            logits, features = model.apply({"params": params}, normalize(to_unit(images), mean, std), train=False)
            pooled = features["pooled"].astype(jnp.float32)
            return logits.astype(jnp.float32), pooled, _appearance(features), features[_LAST_MAP]

        whole, rows = parallel.replicated, parallel.split_rows
        each = parallel.on_each_device(forward, (WHOLE, ROWS), (ROWS,) * 4)
        self.forward = jax.jit(each, in_shardings=(whole, rows), out_shardings=whole)
        self._grad_cam = jax.jit(partial(grad_cam, model), out_shardings=whole)

    def outputs(
        self,
        params: Params,
        images: Images,
        indices: np.ndarray,
        *,
        before_batch: Callable[[], None] = lambda: None,
    ) -> Iterator[Outputs]:
        """Yield the outputs of the images at `indices`, batch by batch; what pads the last batch is dropped.

        Args:
          params: replicated global arrays.
          images, indices: those of `ImageBatches.open`.
          before_batch: is called before each batch; what it raises ends the pass.
        """
        for arrays, count in self._passes(params, images, indices, before_batch):
            yield _to_host(arrays[:-1], count)

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
        self, params: Params, images: Images, indices: np.ndarray, before_batch: Callable[[], None]
    ) -> Iterator[tuple[Sequence[jax.Array], int]]:
        """Yield what `forward` returns of each batch, and how many of its images are no padding."""
        with self._batches.open(images, indices) as batches:
            for number, batch in enumerate(batches):
                before_batch()
                count = min(self.batch_size, len(indices) - number * self.batch_size)
                yield self.forward(params, batch), count

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


def _appearance(features: Features) -> jax.Array:
    inner = features[_INNER_MAP].astype(jnp.float32)
    return jnp.concatenate([inner.mean((1, 2)), inner.std((1, 2))], axis=1)
