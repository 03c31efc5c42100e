"""Arrays from `.npz` files that anybody may have made."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bloodcell_jax.errors import DataError, UserError


@contextmanager
def open_npz(path: Path, source: str) -> Iterator[np.lib.npyio.NpzFile]:
    """Open an `.npz` without pickles, for reading inside the context.

    Raises:
      DataError: it cannot be read, now or inside the context; says why of `source`.
    """
    try:
        # NumPy leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            yield archive
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and the parser of headers raise nearly everything on malformed files.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{source}: cannot be read as .npz ({reason})") from error


def check_images(images: np.ndarray, source: str) -> np.ndarray:
    """Return images as uint8 [n, h, w, 3]; floats in 0 to 1 are scaled.

    Raises:
      DataError: they are something else.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise DataError(f"{source}: images have shape {list(images.shape)}; expected [n, height, width, 3]")
    if np.issubdtype(images.dtype, np.floating):
        if not np.isfinite(images).all():
            raise DataError(f"{source}: images hold NaN or infinity; repair them or save uint8")
        low, high = float(images.min()), float(images.max())
        if low < 0 or high > 1:
            raise DataError(
                f"{source}: float images span {low:g} to {high:g}; floats must lie in 0 to 1 (or save uint8, 0 to 255)"
            )
        return np.round(images * 255).astype(np.uint8)
    if images.dtype != np.uint8:
        raise DataError(f"{source}: images are {images.dtype}; save uint8, 0 to 255")
    return images


def check_labels(labels: np.ndarray, count: int, source: str, class_names: tuple[str, ...]) -> np.ndarray:
    """Return the labels of `count` images, [n] or [n, 1], as int32 [n].

    Raises:
      DataError: they are no classes counted from 0, or none of `class_names` where those are given.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{source}: labels have shape {list(labels.shape)}; expected [n] or [n, 1]")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{source}: labels are {labels.dtype}; expected whole numbers, 0 for the first class")
    if len(labels) != count:
        raise DataError(f"{source}: {count} images but {len(labels)} labels; they must pair up")
    highest = len(class_names) - 1 if class_names else int(labels.max())
    # 100,000 classes would be a column of something else read as labels.
    if labels.min() < 0 or labels.max() > min(highest, 100_000):
        raise DataError(
            f"{source}: labels span {labels.min()} to {labels.max()}, out of range for "
            f"{f'the {len(class_names)} data.class_names' if class_names else 'classes counted from 0'}"
        )
    return labels.astype(np.int32)
