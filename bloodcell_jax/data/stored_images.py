"""Images that stay on the disk and are read by index."""

import contextlib
import hashlib
import io
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from bloodcell_jax.data import image_files
from bloodcell_jax.devices.host import check_fits
from bloodcell_jax.errors import DataError

DECODING_THREADS = 8
# Read and decoded at a time where all are gone through.
_IMAGES_PER_BLOCK = 256


class StoredImages:
    """uint8 [n, h, w, 3] on the disk, which stands in for the array: `images[indices]` reads and decodes these alone.

    It holds no image and pickles small, so that processes that decode can be sent it.

    Args:
      parts: sources that return the encoded images of `__getitems__(numbers)`, one after the other.
      image_size: pixels; what has another size is resized.
      source: what messages name.
      fingerprint: of the files that are read, as text.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, parts: Sequence[Any], image_size: int, source: str, fingerprint: str):
        self._parts, self._image_size, self._source, self._fingerprint = tuple(parts), image_size, source, fingerprint
        self._ends = np.cumsum([len(part) for part in parts])
        self._rows: np.ndarray | None = None  # None: all

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._rows is None else len(self._rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the array that it stands for."""
        return len(self), self._image_size, self._image_size, 3

    @property
    def nbytes(self) -> int:
        """Of the array that it stands for."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def key(self) -> str:
        """Hexadecimal digits that are the same as long as the files, the size and the selection are."""
        digest = hashlib.sha256(f"{self._fingerprint}\0{self._image_size}".encode())
        digest.update(b"" if self._rows is None else self._rows.tobytes())
        return digest.hexdigest()

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return one image [h, w, 3], or those at integer indices, a slice or a mask, [m, h, w, 3].

        Raises:
          DataError: an image cannot be read.
        """
        if self._rows is not None:
            rows = self._rows[index]
        elif isinstance(index, slice):
            rows = np.arange(*index.indices(len(self)))
        else:
            rows = np.flatnonzero(index) if np.asarray(index).dtype == bool else np.asarray(index)
        return self._read(rows) if rows.ndim else self._read(rows[None])[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks():
            yield from block

    def select(self, kept: np.ndarray) -> "StoredImages":
        """Return those at integer indices or a mask, reading none."""
        selected = StoredImages(self._parts, self._image_size, self._source, self._fingerprint)
        selected._rows = np.arange(len(self))[kept] if self._rows is None else self._rows[kept]
        return selected

    def in_memory(self) -> np.ndarray:
        """Return all of them, uint8 [n, h, w, 3].

        Raises:
          MachineError: they do not fit into memory.
        """
        check_fits(self.nbytes, self._source)
        images, start = np.empty(self.shape, np.uint8), 0
        for block in self._blocks():
            images[start : start + len(block)] = block
            start += len(block)
        return images

    def _blocks(self) -> Iterator[np.ndarray]:
        """Yield all in order, a block at a time; threads decode a few blocks ahead, so memory stays flat."""
        waiting: deque[Future] = deque()
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            for start in range(0, len(self), _IMAGES_PER_BLOCK):
                waiting.append(pool.submit(self.__getitem__, slice(start, start + _IMAGES_PER_BLOCK)))
                if len(waiting) > 2 * DECODING_THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _read(self, rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        part_of = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(part_of):
            places = np.flatnonzero(part_of == number)
            part = self._parts[number]
            own = rows[places] - (self._ends[number] - len(part))
            with damage_named(self._source):
                contents = part.__getitems__(own.tolist())
            for place, row, content in zip(places, own, contents, strict=True):
                images[place] = self._decode(content, f"{self._source}: example {row} of {part.name}")
        return images

    def _decode(self, content: bytes, name: str) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(content)) as image:
                pixels = np.asarray(image_files.to_rgb(image, image.format))
            return image_files.resize_arrays(pixels[None], self._image_size)[0]
        except Exception as error:  # Pillow's decoders raise nearly everything on malformed files.
            raise DataError(f"{name} cannot be read ({error}); prepare it again") from error


@contextlib.contextmanager
def damage_named(source: str) -> Iterator[None]:
    """Say in one line that the files of a source are damaged.

    Raises:
      DataError: instead of whatever reading raised.
    """
    try:
        yield
    except (
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        OSError,
    ) as error:  # nearly anything: half a record may parse
        raise DataError(f"{source}: its files are damaged ({error}); prepare it again") from error
