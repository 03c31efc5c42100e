"""Passes over images: each of them once, in batches of one shape that are cut over the devices."""

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np

from bloodcell_jax.data.resident_images import ResidentImages
from bloodcell_jax.data.stored_images import StoredImages
from bloodcell_jax.data.streaming import open_stream
from bloodcell_jax.devices.parallel import DataParallel

# Images uint8 [n, h, w, 3] wherever they lie: on the devices, on the host, or on its disk.
Images = ResidentImages | np.ndarray | StoredImages


class ImageBatches:
    """Gathers or reads images in batches of `batch_size`, a multiple of the devices."""

    def __init__(self, parallel: DataParallel, batch_size: int):
        self._parallel, self._batch_size = parallel, batch_size
        whole, rows = parallel.replicated, parallel.split_rows
        self._gather = jax.jit(ResidentImages.gather, in_shardings=(whole, rows), out_shardings=rows)

    @contextlib.contextmanager
    def open(self, images: Images, indices: np.ndarray) -> Iterator[Iterator[jax.Array]]:
        """Open the images at `indices`, batch by batch, uint8 [batch, h, w, 3].

        Args:
          images: uint8 [N, h, w, 3]: on the devices, replicated and global; or on the host or its disk, of which
            each process reads its own rows of every batch, ahead of their use.
          indices: int32 [n]; the last batch is padded.
        """
        plan = _PaddedBatches(indices, self._batch_size)
        if isinstance(images, ResidentImages):
            yield (self._gather(images, self._parallel.global_rows(rows)) for rows in plan)
            return
        own = dataclasses.replace(plan, rows=self._parallel.local_rows(self._batch_size))
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
