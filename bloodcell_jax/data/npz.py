"""Arrays from `.npz` files of any origin."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.dataset import Dataset, index_ids
from bloodcell_jax.data.file_trees import printable
from bloodcell_jax.data.image_files import resize_arrays
from bloodcell_jax.data.pixel_levels import fault_of, has_one_color
from bloodcell_jax.devices.host import check_fits
from bloodcell_jax.errors import DataError, UserError
from bloodcell_jax.regular_files import check_regular_file

logger = logging.getLogger(__name__)

# More classes than this would be a column of something else that was read as labels.
_MOST_LABELS = 100_000


def load_npz(place: str, source: str, config: DataConfig) -> Dataset:
    """Read the keys images and labels of an `.npz`; see `bloodcell_jax.data.sources.load_source`."""
    with open_npz(Path(os.path.expanduser(place)), source) as archive:
        missing = {"images", "labels"} - set(archive.files)
        if missing:
            found = ", ".join(printable(PurePosixPath(key)) for key in archive.files)
            raise DataError(
                f"{source}: no key {' nor '.join(sorted(missing))} (it has {found or 'none'}); "
                "save it with np.savez(path, images=..., labels=...)"
            )
        images, labels = read_array(archive, "images", source), read_array(archive, "labels", source)
    images = check_images(images, source)
    labels = check_labels(labels, len(images), source, config.class_names)
    return Dataset(
        images=resize_arrays(images, config.image_size),
        labels=labels,
        class_names=config.class_names or index_ids(int(labels.max()) + 1),
        ids=index_ids(len(labels)),
        source=source,
    )


@contextmanager
def open_npz(path: Path, source: str) -> Iterator[np.lib.npyio.NpzFile]:
    """Open an `.npz` for reading inside the context; pickles are refused.

    Raises:
      DataError: the file cannot be read, now or inside the context; the message names `source` and the reason.
    """
    check_regular_file(path, source)
    try:
        # NumPy does not close a file that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            yield archive
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and the parser of headers raise nearly everything on malformed files.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{source}: cannot be read as .npz ({reason}); save it again with np.savez") from error


def read_array(archive: np.lib.npyio.NpzFile, key: str, source: str) -> np.ndarray:
    """Return an array of an opened `.npz`.

    Raises:
      DataError: the member is something else.
      MachineError: it claims more bytes than fit into memory.
    """
    # A member may be named with the suffix or without; NumPy returns one that holds no array as its bytes.
    assert archive.zip is not None  # It is open.
    members = {info.filename.removesuffix(".npy"): info.file_size for info in archive.zip.infolist()}
    check_fits(members.get(key, 0), source)
    array = archive[key]
    if not isinstance(array, np.ndarray):
        raise DataError(f"{source}: {key} is no array; save it again with np.savez")
    return array


def check_images(images: np.ndarray, source: str, key: str = "images") -> np.ndarray:
    """Return images as uint8 [n, h, w, 3]; floats in 0 to 1 are scaled to 0 to 255.

    The log says how many images have one color each, as rows have that were never filled.

    Args:
      images: the array.
      source, key: the source and the array's name in it, for messages.

    Raises:
      DataError: the array has another shape, type or range, or all its images show nothing.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise DataError(
            f"{source}: {key} have shape {list(images.shape)}; expected [n, height, width, 3]{_remedy(images.shape)}"
        )
    brightest = ""
    if np.issubdtype(images.dtype, np.floating):
        if not np.isfinite(images).all():
            raise DataError(f"{source}: {key} hold NaN or infinity; repair them or save uint8")
        low, high = float(images.min()), float(images.max())
        if low < 0 or high > 1:
            raise DataError(
                f"{source}: float {key} span {low:g} to {high:g}; floats must lie in 0 to 1 (or save uint8, 0 to 255)"
            )
        brightest = f" (as floats {high:.2g} of 1)"
        images = np.round(images * 255).astype(np.uint8)
    if images.dtype != np.uint8:
        raise DataError(f"{source}: {key} are {images.dtype}; save uint8, 0 to 255")
    if fault := fault_of(images):
        raise DataError(f"{source}: {key} show nothing: {fault}{brightest}; save uint8, 0 to 255")
    _mention_blank(images, source, key)
    return images


def _remedy(shape: tuple[int, ...]) -> str:
    """Return what to do about a shape that a known habit explains, as the end of a message."""
    if len(shape) == 3 and shape[-1] != 3:
        return ": the colors are missing; save np.repeat(images[..., None], 3, -1) if they are gray"
    if len(shape) != 4:
        return ""
    if shape[1] == 3:
        return ": the colors come first; save np.moveaxis(images, 1, -1)"
    if shape[2] == 3:
        return ": the images come last; save np.moveaxis(images, -1, 0)"
    if shape[-1] == 1:
        return ": one channel; save np.repeat(images, 3, -1)"
    return ": four channels; save images[..., :3] if the fourth is alpha" if shape[-1] == 4 else ""


def _mention_blank(images: np.ndarray, source: str, key: str) -> None:
    blank = [i for i, image in enumerate(images) if has_one_color(image)]
    if len(blank) == len(images):
        raise DataError(f"{source}: {key} show nothing: each image has one color; save them again")
    if blank:
        logger.warning(
            "%s: %s: %s of %s have one color each and show nothing; the first is number %d; remove them",
            *(source, key, f"{len(blank):,}", f"{len(images):,}", blank[0]),
        )


def check_labels(labels: np.ndarray, count: int, source: str, class_names: tuple[str, ...]) -> np.ndarray:
    """Return the labels of `count` images, [n] or [n, 1], as int32 [n].

    Raises:
      DataError: the labels do not count classes from 0, or go beyond `class_names` if those are given.
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
    if labels.min() < 0 or labels.max() > min(highest, _MOST_LABELS):
        known = f"the {len(class_names)} data.class_names" if class_names else "classes counted from 0"
        raise DataError(
            f"{source}: labels span {labels.min()} to {labels.max()}, out of range for {known}; number the classes "
            "from 0"
        )
    return labels.astype(np.int32)
