"""Whether the images' own sizes fit the geometry they are read with."""

import zipfile
from pathlib import Path

import numpy as np

from bloodcell_jax.data.dataset import Dataset

# Less than this share of the images may differ without a word: in published sets a few always do.
_FEW = 0.02
# The published geometry keeps 200 of 360 pixels: 0.56. What keeps more than the first of the side cuts into images
# that were cropped to the cell already; what keeps less than the second shows a part of a cell, or one at random.
_KEPT = (0.85, 0.33)
# Beyond this ratio of the sides an image loses, or is distorted by, more than a cell's irregular outline.
_SQUARE = 1.1


def image_sizes(dataset: Dataset) -> tuple[np.ndarray, bool] | None:
    """Return the images' own (width, height), int [n, 2] or one row for an array, and whether they are files.

    None where the source is not on disk as files or an .npz.
    """
    kind, _, place = dataset.source.partition(":")
    path = Path(place if kind in ("npz", "folder", "zip") else dataset.source).expanduser()
    if path.is_dir():
        return np.array([_size(path / name) for name in dataset.ids]), True
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if "images.npy" not in archive.namelist():
            return np.array([_size(archive.open(name)) for name in dataset.ids]), True
        with archive.open("images.npy") as file:
            major, _ = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            (_, height, width, _), _, _ = read(file)
            return np.array([[width, height]]), False


def _size(file) -> tuple[int, int]:
    from PIL import Image

    with Image.open(file) as image:
        return image.size


def geometry_warnings(sizes: np.ndarray, *, are_files: bool, image_size: int, crop: int | None) -> list[str]:
    """Return what about image sizes (width, height) [n, 2] suggests another geometry than (image_size, crop)."""
    short, long = sizes.min(axis=1), sizes.max(axis=1)
    cropped = short > crop if are_files and crop is not None else np.zeros(len(sizes), bool)
    warnings = []
    if _FEW < cropped.mean() < 1 - _FEW:
        warnings.append(
            f"{cropped.sum():,} images are larger than the crop of {crop} pixels and keep their scale, "
            f"{(~cropped).sum():,} are not and are scaled whole: cells of one size come out in two. Bring the images "
            "to one scale."
        )
    if cropped.mean() > 1 - _FEW:
        side = int(np.median(short[cropped]))
        if crop / side > _KEPT[0]:
            warnings.append(
                f"The images are {side} pixels wide, and the crop of {crop} takes a narrow border off: they may have "
                "been cropped to the cell already. Compare with --crop=none."
            )
        elif crop / side < _KEPT[1]:
            warnings.append(
                f"The images are {side} pixels wide, and the crop of {crop} keeps {crop / side:.0%} of that: a "
                f"part of a cell, if the published proportion holds. Compare with --crop={round(side * 200 / 360)}."
            )
    oblong = long > _SQUARE * short
    if oblong.mean() > _FEW and not cropped.all():
        what = "only their centerd squares are used" if are_files else "they are squeezed to squares, cells with them"
        warnings.append(f"{oblong.mean():.0%} of the images are not square: {what}. Crop them before.")
    used = int(np.median(np.where(cropped, crop or 0, short)))
    if used < image_size / 2:
        warnings.append(
            f"The images are enlarged from {used} to {image_size} pixels, which costs time and adds nothing. Use "
            f"--image_size={used} here and data.image_size={used} in training, with a stem_stride of 2."
        )
    return warnings
