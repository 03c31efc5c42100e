"""Whether the images' own sizes fit the geometry that they are read with."""

import zipfile

import numpy as np

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.sources import source_path

# A smaller share of the images may differ without a warning: a few always do in published sets.
_FEW = 0.02
# Shares of the side that the crop keeps; the published geometry keeps 200 of 360 pixels, 0.56. Above the first, the
# images were probably cropped to the cell already. Below the second, the crop shows a part of a cell, or a random cell.
_MOST_KEPT, _LEAST_KEPT = 0.85, 0.33
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
    with zipfile.ZipFile(path) as archive, archive.open("images.npy") as file:
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        (_, height, width, _), _, _ = read(file)
        return np.array([[width, height]]), False


def warnings_of(dataset: Dataset, crop: int | None) -> list[str]:
    """Return warnings if the own sizes of a dataset's images suggest another geometry than `crop`."""
    found = image_sizes(dataset)
    if found is None:
        return []
    sizes, are_files = found
    return geometry_warnings(sizes, are_files=are_files, image_size=dataset.images.shape[1], crop=crop)


def geometry_warnings(sizes: np.ndarray, *, are_files: bool, image_size: int, crop: int | None) -> list[str]:
    """Return warnings if the sizes of the images suggest another geometry.

    Args:
      sizes: (width, height) of the images, int [n, 2].
      are_files: the images are files; arrays are never cropped.
      image_size: side in pixels that the images are resized to.
      crop: pixels of the center crop; None: no crop.
    """
    short, long = sizes.min(axis=1), sizes.max(axis=1)
    cropped = np.zeros(len(sizes), bool)
    warnings = []
    if are_files and crop is not None:
        cropped = short > crop
        warnings += _crop_warnings(short, cropped, crop)
    oblong = long > _SQUARE * short
    if oblong.mean() > _FEW and not cropped.all():
        what = "only their centered squares are used" if are_files else "they are squeezed to squares, cells with them"
        warnings.append(f"{oblong.mean():.0%} of the images are not square: {what}. Crop them before.")
    used = int(np.median(np.where(cropped, crop or 0, short)))
    if used < image_size / 2:
        warnings.append(
            f"The images are enlarged from {used} to {image_size} pixels, which costs time and adds nothing. Use "
            f"--image_size={used} here and data.image_size={used} in training, with a stem_stride of 2."
        )
    return warnings


def _crop_warnings(short: np.ndarray, cropped: np.ndarray, crop: int) -> list[str]:
    """Return at most one warning about the crop; `short` is the shorter side of each image, [n]."""
    share = cropped.mean()
    if _FEW < share < 1 - _FEW:
        return [
            f"{cropped.sum():,} images are larger than the crop of {crop} pixels and keep their scale, "
            f"{(~cropped).sum():,} are not and are scaled whole: cells of one size get two sizes. Bring the images to "
            "one scale."
        ]
    if share <= 1 - _FEW:
        return []
    side = int(np.median(short[cropped]))
    if crop / side > _MOST_KEPT:
        return [
            f"The images are {side} pixels wide, and the crop of {crop} removes only a narrow border: they may have "
            "been cropped to the cell already. Compare with --crop=none."
        ]
    if crop / side < _LEAST_KEPT:
        return [
            f"The images are {side} pixels wide, and the crop of {crop} keeps {crop / side:.0%} of that: a part of a "
            f"cell, if the published proportion holds. Compare with --crop={round(side * 200 / 360)}."
        ]
    return []
