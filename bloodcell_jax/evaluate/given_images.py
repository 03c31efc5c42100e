"""Images that a caller gives in Python: arrays, PIL images or paths, brought to the model's geometry as files are."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bloodcell_jax.data.file_trees import UnreadableFile, read_file
from bloodcell_jax.data.geometry import Geometry
from bloodcell_jax.data.image_files import crop_arrays, decode_sized, resize_arrays, to_geometry
from bloodcell_jax.data.pixel_levels import fault_of
from bloodcell_jax.errors import DataError, UsageError

# One image: uint8 [h, w, 3], a PIL image, or the path of an image file.
GivenImage = np.ndarray | Image.Image | str | Path


def to_model_size(images: np.ndarray | Sequence[GivenImage], geometry: Geometry, *, cropped: bool) -> np.ndarray:
    """Return given images as uint8 [n, image_size, image_size, 3].

    Args:
      images: uint8 [n, h, w, 3], or images of any sizes.
      geometry: the model's.
      cropped: the images are cropped already; each is resized whole.

    Raises:
      UsageError: an array has another shape or dtype.
      DataError: an image cannot be read or shows nothing; names its number or path.
    """
    if isinstance(images, np.ndarray):
        _check_array(images, images.ndim == 4, "[n, height, width, 3]")
        if fault := fault_of(images):
            raise DataError(f"images show nothing: {fault}; give 0 to 255")
        return resize_arrays(images if cropped else crop_arrays(images, geometry), geometry.image_size)
    ready = np.empty((len(images), geometry.image_size, geometry.image_size, 3), np.uint8)
    for number, image in enumerate(images):
        ready[number] = _one(image, f"image {number}", geometry, cropped=cropped)
    return ready


def _one(image: GivenImage, name: str, geometry: Geometry, *, cropped: bool) -> np.ndarray:
    if isinstance(image, np.ndarray):
        _check_array(image, image.ndim == 3, "[height, width, 3]")
        image = Image.fromarray(image)
    elif not isinstance(image, Image.Image):
        content, name = read_file(Path(os.path.expanduser(image)), str(image)), str(image)
        return decode_sized(content, name, geometry, whole=cropped).pixels
    try:
        return to_geometry(image, geometry, whole=cropped).pixels
    except Exception as error:  # Pillow's decoders raise nearly everything on malformed files.
        raise UnreadableFile(name, " ".join(str(error).split()) or type(error).__name__) from error


def _check_array(array: np.ndarray, has_axes: bool, expected: str) -> None:
    if not has_axes or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise UsageError(f"images are {array.dtype} {list(array.shape)}; expected uint8 {expected}")
