"""Forward passes over many pictures, every one of them exactly once."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bloodcell_jax.data.stored_pictures import StoredPictures
from bloodcell_jax.data.streaming import open_stream
from bloodcell_jax.train.parallel import ROWS, WHOLE, DataParallel
from bloodcell_jax.train.step import normalise, to_unit


class Evaluator:
    """Class probabilities of pictures, in batches of one compiled shape, each cut over the devices.

    Attributes:
      batch_size: pictures of one forward pass, a multiple of the devices.
      probabilities: that pass, jitted: (params, images uint8 [batch, h, w, 3]) -> [batch, classes].
    """

    def __init__(self, model: nn.Module, *, mean, std, batch_size: int, parallel: DataParallel):
        self._parallel = parallel
        devices = parallel.mesh.size
        self.batch_size = -(-batch_size // devices) * devices

        def probabilities(params, images):
            logits, _ = model.apply({"params": params}, normalise(to_unit(images), mean, std), train=False)
            return jax.nn.softmax(logits.astype(jnp.float32))

        whole, rows = parallel.replicated, parallel.split_rows
        self._gather = jax.jit(lambda images, indices: images[indices], in_shardings=(whole, rows), out_shardings=rows)
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
          images: uint8 [N, h, w, 3]: on the devices, replicated and global; or on the host or its disk, from where
            each process reads its own rows of every batch, ahead of their use.
          indices: int32 [n]; the last batch is padded, and the padding dropped.
          stop: asked before each batch; where it says yes, nothing is returned.
        """
        plan, chunks = _PaddedBatches(indices, self.batch_size), []
        with self._open_batches(images, plan) as batches:
            for batch in batches:
                if stop():
                    return None
                chunks.append(np.asarray(jax.device_get(self.probabilities(params, batch))))
        probabilities = np.concatenate(chunks)[: len(indices)].astype(np.float64)
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    @contextlib.contextmanager
    def _open_batches(
        self, images: jax.Array | np.ndarray | StoredPictures, plan: "_PaddedBatches"
    ) -> Iterator[Iterator[jax.Array]]:
        if isinstance(images, jax.Array):
            yield (self._gather(images, self._parallel.global_rows(rows)) for rows in plan)
            return
        own = dataclasses.replace(plan, rows=self._parallel.local_rows(self.batch_size))
        # In threads: starting processes takes longer than reading most validation splits.
        place = lambda _, rows: self._parallel.global_batch(rows)  # noqa: E731
        with open_stream(images, own, workers=0, place=place) as batches:
            yield batches


@dataclass(frozen=True)
class _PaddedBatches:
    """Indices int32 [n] in batches of one size, the last one padded; `rows` of each, or all."""

    indices: np.ndarray
    batch_size: int
    rows: slice | None = None

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __getitem__(self, number: int) -> np.ndarray:
        if not 0 <= number < len(self):
            raise IndexError(number)
        batch = self.indices[number * self.batch_size :][: self.batch_size]
        padded = np.pad(batch, (0, self.batch_size - len(batch)), mode="edge").astype(np.int32)
        return padded if self.rows is None else padded[self.rows]
