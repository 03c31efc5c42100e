"""Geometry: which square of an image file is looked at, and whether that fits what a model was trained on."""

from typing import Any, NamedTuple, Self

import numpy as np

from bloodcell_jax.config import AUTO, Crop, DataConfig

# The published geometry of PBC, as MedMNIST cuts it: the middle 200 of 360 pixels. Its red cells, 7 to 8 micrometers
# wide, are 70 to 80 pixels wide, so that a pixel is 0.1 micrometers; this is an estimate, the publishers do not say it.
PUBLISHED_SIDE, PUBLISHED_CROP, PUBLISHED_MICRONS = 360, 200, 0.1
# PBC's files have shorter sides of 359 to 366 pixels.
_NEAR = 0.05
# Two views differ if one keeps this much more of its images, or its images are this much larger.
_OTHER_SHARE, _OTHER_SIZE = 1.15, 1.5
# So many sizes of files are named; the others are counted.
_SIZES = 3


class Geometry(NamedTuple):
    """How an image file is brought to the size of the network.

    Attributes:
      image_size: side in pixels of what the network takes.
      crop: the center crop, as `data.crop` says it.
      microns_per_pixel: scale of the files; None: not known. If it is known, a crop in pixels means pixels of 0.1
        micrometers, so that files of any scale show the same piece of the slide.
    """

    image_size: int
    crop: Crop = AUTO
    microns_per_pixel: float | None = None

    @classmethod
    def of(cls, config: DataConfig) -> Self:
        """Return the geometry that a configuration says for all files."""
        scale = config.microns_per_pixel
        return cls(config.image_size, config.crop, None if isinstance(scale, str) else scale)

    def side(self, width: int, height: int) -> int:
        """Return the side of the centered square that is looked at, in pixels of the file."""
        shorter = min(width, height)
        if self.crop is None:
            return shorter
        if isinstance(self.crop, float):
            return max(1, round(self.crop * shorter))
        pixels = self._auto(shorter) if self.crop == AUTO else int(self.crop)
        if self.microns_per_pixel is not None:
            pixels = _at_scale(pixels, self.microns_per_pixel)
        return min(pixels, shorter)

    def _auto(self, shorter: int) -> int:
        like_published = abs(shorter - PUBLISHED_SIDE) <= _NEAR * PUBLISHED_SIDE
        return PUBLISHED_CROP if like_published or self.microns_per_pixel is not None else shorter


class View(NamedTuple):
    """What is looked at of image files: medians in pixels of the files.

    Attributes:
      shorter_side: of the files.
      side: of the square that is looked at.
    """

    shorter_side: int
    side: int

    def __str__(self) -> str:
        whole = self.side == self.shorter_side
        return f"{self.shorter_side} pixels wide and " + ("whole" if whole else f"cropped to {self.side}")


class FileGeometry(NamedTuple):
    """What a prepared dataset says of the image files that it was made from.

    Attributes:
      crop: as `data.crop` said it.
      microns_per_pixel: as `data.microns_per_pixel` said it: a number, the column of a manifest, or None.
      view: what was looked at.
    """

    crop: Crop
    microns_per_pixel: float | str | None
    view: View

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return self._asdict() | {"view": self.view._asdict()}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return what `to_json` wrote.

        Raises:
          ValueError: it is something else.
        """
        try:
            geometry = cls(**value)
            view = View(**value["view"])
        except (TypeError, KeyError) as error:
            raise ValueError(str(error)) from error
        numbers = (int, float, str, type(None))
        if not (isinstance(geometry.crop, numbers) and isinstance(geometry.microns_per_pixel, numbers)):
            raise ValueError(f"{value}")
        if not all(type(pixels) is int and pixels > 0 for pixels in view):
            raise ValueError(f"{value}")
        return geometry._replace(view=view)


def _at_scale(pixels: int, microns_per_pixel: float) -> int:
    """Return how many pixels of files of a scale show as much as `pixels` of 0.1 micrometers."""
    return max(1, round(pixels * PUBLISHED_MICRONS / microns_per_pixel))


def view_of(sizes: np.ndarray, sides: np.ndarray) -> View:
    """Return the view of files with (width, height) of int [n, 2], of which squares of int [n] are looked at."""
    return View(int(np.median(sizes.min(axis=1))), int(np.median(sides)))


def misfit(trained: View, sizes: np.ndarray, sides: np.ndarray) -> str | None:
    """Return in which way files differ from what a model was trained with; None: all fit.

    Cells that are larger or smaller than those of training are other cells for a model.

    Args:
      trained: medians of the files of training.
      sizes, sides: those of `view_of`, of the other files.
    """
    shorter = sizes.min(axis=1)
    shares, of_training = sides / shorter, trained.side / trained.shorter_side
    other = np.maximum(shares / of_training, of_training / shares) > _OTHER_SHARE
    other |= np.maximum(shorter / trained.shorter_side, trained.shorter_side / shorter) > _OTHER_SIZE
    if not other.any():
        return None
    which = "these images" if other.all() else f"{other.sum():,} of {len(other):,} images"
    return (
        f"{which} are {view_of(sizes[other], sides[other])}, those of training were {trained} (medians): cells may "
        "have another size than the model knows. Compare with another --crop, or give --microns_per_pixel"
    )


def too_small(sizes: np.ndarray, geometry: Geometry | FileGeometry) -> str | None:
    """Return which files of known scale, (width, height) of int [n, 2], do not hold the piece of the slide to look at.

    They are looked at whole, so their cells look larger than those of the others; None: there are none.
    """
    scale, crop = geometry.microns_per_pixel, geometry.crop
    if not isinstance(scale, float | int) or crop is None or isinstance(crop, float):
        return None
    wanted = _at_scale(PUBLISHED_CROP if crop == AUTO else int(crop), scale)
    small = sizes.min(axis=1) * _OTHER_SHARE < wanted
    if not small.any():
        return None
    return (
        f"{small.sum():,} of {len(small):,} images are smaller than the {wanted} pixels of {scale:g} micrometers that "
        f"are to be looked at (median {np.median(sizes[small].min(axis=1)):.0f}), so their cells look too large. "
        "Compare the scale with that of the microscope, or give a smaller --crop"
    )


def describe(sizes: np.ndarray, sides: np.ndarray, geometry: Geometry | FileGeometry, image_size: int) -> str:
    """Say what becomes of files with (width, height) of int [n, 2], of which squares of int [n] are looked at."""
    short, long = sizes.min(axis=1), sizes.max(axis=1)
    cropped = sides < short
    squared = (short < long) & ~cropped
    steps = [f"center-cropped to {_most_common(sides[cropped, None])}"] * bool(cropped.any())
    steps += [f"{squared.sum():,} cropped to their centered square"] * bool(squared.any())
    by_width = geometry.crop == AUTO and geometry.microns_per_pixel is None
    if by_width and (short[~cropped] > PUBLISHED_CROP).any():
        steps.append(f"crop=auto cuts {PUBLISHED_CROP} pixels from files near {PUBLISHED_SIDE} pixels wide alone")
    if (sides < long).any():
        steps.append(f"{100 * np.median(sides**2 / sizes.prod(axis=1)):.3g} % of their area (median) is looked at")
    steps.append(f"all resized to {image_size}x{image_size}")
    return f"files of {_most_common(sizes)} pixels: {'; '.join(steps)}"


def _most_common(sizes: np.ndarray) -> str:
    """Return the most common (width, height) of int [n, 2], or sides of int [n, 1], with their counts."""
    unique, counts = np.unique(sizes, axis=0, return_counts=True)
    largest = np.argsort(-counts, kind="stable")
    named = [f"{unique[i][0]}x{unique[i][-1]} ({counts[i]:,})" for i in largest[:_SIZES]]
    rest = largest[_SIZES:]
    return ", ".join(named + [f"{len(rest)} more sizes ({counts[rest].sum():,})"] * bool(len(rest)))
