"""Images that stay on the disk and are read by index."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from bloodcell_jax.data import image_files
from bloodcell_jax.data.decoding_pool import DECODING_THREADS, map_ahead
from bloodcell_jax.data.pixel_levels import levels_of, to_rgb
from bloodcell_jax.devices.host import check_fits
from bloodcell_jax.errors import DataError

# Images that are read and decoded at a time if all of them are wanted.
_IMAGES_PER_CHUNK = 256


class EncodedImages(Protocol):
    """Encoded images of one split, read by number."""

    @property
    def name(self) -> str:
        """Name of the split, for messages."""
        ...

    def __len__(self) -> int: ...

    def __getitems__(self, numbers: list[int]) -> list[bytes]: ...


class StoredImages:
    """Images on the disk that stand in for an array uint8 [n, h, w, 3]: `images[indices]` reads and decodes only these.

    An instance holds no image and pickles to a few bytes, so it can be sent to the processes that decode.

    Args:
      parts: encoded images; the parts follow each other in this order.
      image_size: side in pixels; images of another size are resized to it.
      source: the source, for messages.
      fingerprint: a text that changes when the files change.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, parts: Sequence[EncodedImages], image_size: int, source: str, fingerprint: str):
        self._parts, self._image_size, self._source, self._fingerprint = tuple(parts), image_size, source, fingerprint
        self._ends = np.cumsum([len(part) for part in parts])
        self._rows: np.ndarray | None = None  # None: all

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._rows is None else len(self._rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the array that this object stands for."""
        return len(self), self._image_size, self._image_size, 3

    @property
    def nbytes(self) -> int:
        """Bytes of the array that this object stands for."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def key(self) -> str:
        """Hexadecimal digits that change when the files, the image size or the selection change."""
        digest = hashlib.sha256(f"{self._fingerprint}\0{self._image_size}".encode())
        digest.update(b"" if self._rows is None else self._rows.tobytes())
        return digest.hexdigest()

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return one image [h, w, 3], or the images [m, h, w, 3] at integer indices, a slice or a mask.

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
        for chunk in self._chunks():
            yield from chunk

    def select(self, kept: np.ndarray) -> "StoredImages":
        """Return the images at integer indices or of a mask, without reading any."""
        selected = StoredImages(self._parts, self._image_size, self._source, self._fingerprint)
        selected._rows = np.arange(len(self))[kept] if self._rows is None else self._rows[kept]
        return selected

    def in_memory(self) -> np.ndarray:
        """Return all images, uint8 [n, h, w, 3].

        Raises:
          DataError: an image cannot be read.
          MachineError: the images do not fit into memory.
        """
        check_fits(self.nbytes, self._source)
        images, start = np.empty(self.shape, np.uint8), 0
        for chunk in self._chunks():
            images[start : start + len(chunk)] = chunk
            start += len(chunk)
        return images

    def _chunks(self) -> Iterator[np.ndarray]:
        """Yield all images in order, in chunks; threads decode only a few chunks ahead, so memory stays flat."""
        starts = range(0, len(self), _IMAGES_PER_CHUNK)
        chunks = (slice(start, start + _IMAGES_PER_CHUNK) for start in starts)
        with contextlib.closing(map_ahead(self.__getitem__, chunks, ahead=2 * DECODING_THREADS)) as decoded:
            yield from decoded

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
            with image_files.open_image(content) as image:
                levels = levels_of(image)
                pixels = np.asarray(to_rgb(image, levels))
            return image_files.resize_arrays(pixels[None], self._image_size)[0]
        except Exception as error:  # Pillow's decoders raise nearly everything on malformed files.
            raise DataError(f"{name} cannot be read ({error}); prepare it again") from error


@contextlib.contextmanager
def damage_named(source: str) -> Iterator[None]:
    """Turn errors of a read inside the context into one line that says that the files of a source are damaged.

    Raises:
      DataError: instead of the errors that a damaged record raises.
    """
    try:
        yield
    # Half a record may still parse, so nearly any error can follow.
    except (RuntimeError, ValueError, TypeError, LookupError, OSError) as error:
        raise DataError(f"{source}: its files are damaged ({error}); prepare it again") from error
