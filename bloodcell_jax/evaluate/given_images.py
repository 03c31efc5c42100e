"""Images that a caller gives in Python: arrays, PIL images or paths, brought to the model's geometry as files are."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bloodcell_jax.data.file_trees import UnreadableFile, read_file
from bloodcell_jax.data.geometry import Geometry
from bloodcell_jax.data.image_files import DecodedImage, crop_arrays, decode_sized, resize_arrays, to_geometry
from bloodcell_jax.data.pixel_levels import fault_of, has_one_color
from bloodcell_jax.errors import DataError, UsageError

# One image: uint8 [h, w, 3], a PIL image, or the path of an image file.
GivenImage = np.ndarray | Image.Image | str | Path


class ReadyImages(NamedTuple):
    """Images of the model's size.

    Attributes:
      pixels: uint8 [n, image_size, image_size, 3].
      sizes: (width, height) of those that came as files or PIL images and are not cropped already, int [m, 2].
      sides: side of the square of each of these that is looked at, int [m].
    """

    pixels: np.ndarray
    sizes: np.ndarray
    sides: np.ndarray


def to_model_size(images: np.ndarray | Sequence[GivenImage], geometry: Geometry, *, cropped: bool) -> ReadyImages:
    """Bring given images to the model's size.

    Args:
      images: uint8 [n, h, w, 3], or images of any sizes.
      geometry: the model's.
      cropped: the images are cropped already; each is resized whole.

    Raises:
      UsageError: an array has another shape or dtype.
      DataError: an image cannot be read or shows nothing; names its number or path.
    """
    if isinstance(images, str | Path | Image.Image):
        raise UsageError("images: one image; give a list of them, such as predict([image])")
    if isinstance(images, np.ndarray):
        _check_array(images, images.ndim == 4, "[n, height, width, 3]")
        if fault := fault_of(images):
            raise DataError(f"images show nothing: {fault}; give 0 to 255")
        for number, image in enumerate(images):
            if fault := fault_of(image[None]) or ("it has one color" if has_one_color(image) else None):
                raise DataError(f"image {number} shows nothing: {fault}")
        whole = images if cropped else crop_arrays(images, geometry)
        return _ready(resize_arrays(whole, geometry.image_size), [])
    images = list(images)
    pixels = np.empty((len(images), geometry.image_size, geometry.image_size, 3), np.uint8)
    sizes = []
    for number, image in enumerate(images):
        ready = _one(image, f"image {number}", geometry, cropped=cropped)
        pixels[number] = ready.pixels
        if not (cropped or isinstance(image, np.ndarray)):
            sizes.append((ready.width, ready.height, ready.side))
    return _ready(pixels, sizes)


def _ready(pixels: np.ndarray, sizes: Sequence[tuple[int, int, int]]) -> ReadyImages:
    table = np.array(sizes, int).reshape(-1, 3)
    return ReadyImages(pixels, table[:, :2], table[:, 2])


def _one(image: GivenImage, name: str, geometry: Geometry, *, cropped: bool) -> DecodedImage:
    if isinstance(image, np.ndarray):
        _check_array(image, image.ndim == 3, "[height, width, 3]")
        image = Image.fromarray(image)
    elif not isinstance(image, Image.Image):
        content, name = read_file(Path(os.path.expanduser(image)), str(image)), str(image)
        return decode_sized(content, name, geometry, whole=cropped)
    try:
        return to_geometry(image, geometry, whole=cropped)
    except Exception as error:  # Pillow's decoders raise nearly everything on malformed files.
        raise UnreadableFile(name, " ".join(str(error).split()) or type(error).__name__) from error


def _check_array(array: np.ndarray, has_axes: bool, expected: str) -> None:
    if not has_axes or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise UsageError(f"images are {array.dtype} {list(array.shape)}; expected uint8 {expected}")
