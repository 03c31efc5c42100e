"""Forward passes over many pictures, every one of them exactly once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bloodcell_jax.data.stored_pictures import StoredPictures
from bloodcell_jax.train.parallel import ROWS, WHOLE, DataParallel
from bloodcell_jax.train.picture_batches import PictureBatches
from bloodcell_jax.train.step import normalise, to_unit


class Evaluator:
    """Class probabilities of pictures, in batches of one compiled shape, each cut over the devices.

    Attributes:
      batch_size: pictures of one forward pass, a multiple of the devices.
      probabilities: that pass, jitted: (params, images uint8 [batch, h, w, 3]) -> [batch, classes].
    """

    def __init__(self, model: nn.Module, *, mean, std, batch_size: int, parallel: DataParallel):
        devices = parallel.mesh.size
        self.batch_size = -(-batch_size // devices) * devices
        self._batches = PictureBatches(parallel, self.batch_size)

        def probabilities(params, images):
            logits, _ = model.apply({"params": params}, normalise(to_unit(images), mean, std), train=False)
            return jax.nn.softmax(logits.astype(jnp.float32))

        whole, rows = parallel.replicated, parallel.split_rows
        each = parallel.on_each_device(probabilities, (WHOLE, ROWS), ROWS)
        self.probabilities = jax.jit(each, in_shardings=(whole, rows), out_shardings=whole)

    def predict(
        self,
        params: Any,
        images: jax.Array | np.ndarray | StoredPictures,
        indices: np.ndarray,
        *,
        stop: Callable[[], bool] = lambda: False,
    ) -> np.ndarray | None:
        """Return probabilities [n, classes], float64 rows that sum to 1, of the pictures at `indices`.

        Args:
          params: replicated global arrays.
          images, indices: those of `PictureBatches.open`; what pads the last batch is dropped.
          stop: asked before each batch; where it says yes, nothing is returned.
        """
        chunks = []
        with self._batches.open(images, indices) as batches:
            for batch in batches:
                if stop():
                    return None
                chunks.append(np.asarray(jax.device_get(self.probabilities(params, batch))))
        probabilities = np.concatenate(chunks)[: len(indices)].astype(np.float64)
        return probabilities / probabilities.sum(axis=1, keepdims=True)
