"""Whether the images' own sizes fit the geometry that they are read with."""

import zipfile

import numpy as np

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.geometry import PUBLISHED_CROP, PUBLISHED_SIDE, too_small
from bloodcell_jax.data.sources import source_path

# A smaller share of the images may differ without a warning: a few always do in published sets.
_FEW = 0.02
# Shares of the side that the crop keeps. Above the first, the images were probably cropped to the cell already. Below
# the second, the crop shows a part of a cell, or a random cell; 200 of Raabin-WBC's 575 pixels, 0.35, cut into nuclei.
_MOST_KEPT, _LEAST_KEPT, _PUBLISHED_SHARE = 0.85, 0.45, PUBLISHED_CROP / PUBLISHED_SIDE
# If the sides have a larger ratio than this, an image loses, or is distorted by, more than a cell's irregular outline.
_SQUARE = 1.1


def image_sizes(dataset: Dataset) -> tuple[np.ndarray, bool] | None:
    """Return the images' own (width, height), int [n, 2], and whether they are files; an array has only one row.

    The result is None if the source is neither files nor an .npz on disk.
    """
    if dataset.original_sizes is not None:
        return dataset.original_sizes, True
    path = source_path(dataset.source)
    if path is None or not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive, archive.open(_member(archive)) as file:
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        (_, height, width, _), _, _ = read(file)
        return np.array([[width, height]]), False


def _member(archive: zipfile.ZipFile) -> str:
    """Return the member that holds the images; NumPy finds it with and without the suffix."""
    return next(name for name in ("images.npy", "images") if name in archive.namelist())


def warnings_of(dataset: Dataset) -> list[str]:
    """Return warnings if the own sizes of a dataset's images suggest another geometry than they were read with."""
    found = image_sizes(dataset)
    if found is None:
        return []
    sizes, are_files = found
    warnings = geometry_warnings(sizes, dataset.sides if are_files else None, image_size=dataset.images.shape[1])
    small = too_small(sizes, dataset.file_geometry) if are_files and dataset.file_geometry is not None else None
    return warnings if small is None else [*warnings, small]


def geometry_warnings(sizes: np.ndarray, sides: np.ndarray | None, *, image_size: int) -> list[str]:
    """Return warnings if the sizes of the images suggest another geometry.

    Args:
      sizes: (width, height) of the images, int [n, 2].
      sides: side of the square of each image file that is looked at, int [n]; None: the images are arrays.
      image_size: side in pixels that the images are resized to.
    """
    short, long = sizes.min(axis=1), sizes.max(axis=1)
    cropped = np.zeros(len(sizes), bool) if sides is None else sides < short
    warnings = [] if sides is None else _crop_warnings(short, sides)
    oblong = long > _SQUARE * short
    if oblong.mean() > _FEW and not cropped.all():
        what = (
            "they are squeezed to squares, cells with them" if sides is None else "only their centered squares are used"
        )
        warnings.append(f"{oblong.mean():.0%} of the images are not square: {what}. Crop them before.")
    used = int(np.median(short if sides is None else sides))
    if used < image_size / 2:
        warnings.append(
            f"The images are enlarged from {used} to {image_size} pixels, which costs time and adds nothing. Use an "
            f"image_size of {used} in audit and training, and with a ConvNeXt a stem_stride of 2."
        )
    return warnings


def _crop_warnings(short: np.ndarray, sides: np.ndarray) -> list[str]:
    """Return at most one warning about the crop; `short` is the shorter side of each image, [n]."""
    cropped = sides < short
    share = cropped.mean()
    if _FEW < share < 1 - _FEW:
        return [
            f"{cropped.sum():,} images are larger than the crop of {int(np.median(sides[cropped]))} pixels and keep "
            f"their scale, {(~cropped).sum():,} are not and are scaled whole: cells of one size get two sizes. Bring "
            "the images to one scale."
        ]
    if share <= 1 - _FEW:
        return []
    side, width = int(np.median(sides[cropped])), int(np.median(short[cropped]))
    kept = side / width
    if kept > _MOST_KEPT:
        return [
            f"The images are {width} pixels wide, and the crop of {side} removes only a narrow border: they may have "
            "been cropped to the cell already. Compare with --crop=none."
        ]
    if kept < _LEAST_KEPT:
        return [
            f"The images are {width} pixels wide, and the crop of {side} keeps {kept:.0%} of that: a part of a cell, "
            f"if the cell fills its image. Compare with --crop=none, or with --crop={_PUBLISHED_SHARE:.2f}, the "
            "published proportion."
        ]
    return []
