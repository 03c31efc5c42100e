"""Forward passes over many images, every one of them exactly once."""

from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from bloodcell_jax.devices.parallel import ROWS, WHOLE, DataParallel
from bloodcell_jax.evaluate.image_batches import ImageBatches, Images
from bloodcell_jax.models.input import normalize, to_unit
from bloodcell_jax.models.network import Network, Params


class Evaluator:
    """Class probabilities of images, in batches of one compiled shape, each cut over the devices.

    Attributes:
      batch_size: images of one forward pass, a multiple of the devices.
      probabilities: that pass, jitted: (params, images uint8 [batch, h, w, 3]) -> [batch, classes].
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

        def probabilities(params: Params, images: jax.Array) -> jax.Array:
            logits, _ = model.apply({"params": params}, normalize(to_unit(images), mean, std), train=False)
            return jax.nn.softmax(logits.astype(jnp.float32))

        whole, rows = parallel.replicated, parallel.split_rows
        each = parallel.on_each_device(probabilities, (WHOLE, ROWS), ROWS)
        self.probabilities = jax.jit(each, in_shardings=(whole, rows), out_shardings=whole)

    def predict(
        self,
        params: Params,
        images: Images,
        indices: np.ndarray,
        *,
        before_batch: Callable[[], None] = lambda: None,
    ) -> np.ndarray:
        """Return probabilities [n, classes], float64 rows that sum to 1, of the images at `indices`.

        Args:
          params: replicated global arrays.
          images, indices: those of `ImageBatches.open`; what pads the last batch is dropped.
          before_batch: is called before each batch; what it raises ends the pass.
        """
        parts = []
        with self._batches.open(images, indices) as batches:
            for batch in batches:
                before_batch()
                parts.append(_to_host(self.probabilities(params, batch)))
        return np.concatenate(parts)[: len(indices)]

    def predict_as_they_come(self, params: Params, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield what `predict` returns, batch by batch; the next batch is awaited while the devices compute one.

        Args:
          params: replicated global arrays.
          batches: images uint8 [m, h, w, 3] in this process, 1 to `batch_size` of them.
        """
        running = None
        for images in batches:
            padding = [(0, self.batch_size - len(images)), *[(0, 0)] * 3]
            placed = self._parallel.global_batch(np.pad(images, padding, mode="edge"))
            done = None if running is None else _finished(*running)
            running = self.probabilities(params, placed), len(images)
            if done is not None:
                yield done
        if running is not None:
            yield _finished(*running)


def _finished(probabilities: jax.Array, count: int) -> np.ndarray:
    return _to_host(probabilities)[:count]


def _to_host(probabilities: jax.Array) -> np.ndarray:
    rows = np.asarray(jax.device_get(probabilities), np.float64)
    return rows / rows.sum(axis=1, keepdims=True)
