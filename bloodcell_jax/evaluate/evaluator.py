"""Forward passes over many pictures, every one of them exactly once."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bloodcell_jax.train.parallel import DataParallel
from bloodcell_jax.train.step import normalise, to_unit


class Evaluator:
    """Class probabilities of pictures that lie on the devices, in batches of one compiled shape.

    Attributes:
      batch_size: pictures of one forward pass, a multiple of the devices.
      probabilities: that pass, jitted: (params, images uint8 [N, h, w, 3], indices [batch]) -> [batch, classes].
    """

    def __init__(self, model: nn.Module, *, mean, std, batch_size: int, parallel: DataParallel):
        self._parallel = parallel
        devices = parallel.mesh.size
        self.batch_size = -(-batch_size // devices) * devices

        def probabilities(params, images, indices):
            logits, _ = model.apply({"params": params}, normalise(to_unit(images[indices]), mean, std), train=False)
            return jax.nn.softmax(logits.astype(jnp.float32))

        whole = parallel.replicated
        self.probabilities = jax.jit(
            probabilities, in_shardings=(whole, whole, parallel.split_rows), out_shardings=whole
        )

    def predict(
        self, params: Any, images: jax.Array, indices: np.ndarray, *, stop: Callable[[], bool] = lambda: False
    ) -> np.ndarray | None:
        """Return probabilities [n, classes], float64 rows that sum to 1, of the pictures at `indices`.

        Args:
          params: replicated global arrays.
          images: uint8 [N, h, w, 3], replicated and global.
          indices: int32 [n]; the last batch is padded, and the padding dropped.
          stop: asked before each batch; where it says yes, nothing is returned.
        """
        chunks = []
        for batch, real in _padded_batches(indices, self.batch_size):
            if stop():
                return None
            rows = self._parallel.global_rows(batch)
            chunks.append(np.asarray(jax.device_get(self.probabilities(params, images, rows)))[:real])
        probabilities = np.concatenate(chunks).astype(np.float64)
        return probabilities / probabilities.sum(axis=1, keepdims=True)


def _padded_batches(indices: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (int32 [batch_size], how many of them are real)."""
    for start in range(0, len(indices), batch_size):
        batch = indices[start : start + batch_size]
        yield np.pad(batch, (0, batch_size - len(batch)), mode="edge").astype(np.int32), len(batch)
