"""Decoding pictures and bringing them to the network's geometry."""

import io
import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from bloodcell_jax.errors import DataError

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm"))


def decode(file: BinaryIO | bytes, name: str, *, image_size: int, crop: int | None) -> np.ndarray:
    """Return the picture as uint8 [image_size, image_size, 3].

    A picture larger than `crop` on both sides is centre-cropped to crop x crop, any other to its centred square;
    then it is resized, bicubic with antialiasing.

    Raises:
      DataError: it cannot be decoded; `name` and the reason are named.
    """
    try:
        with warnings.catch_warnings():
            # A decompression bomb is refused, not warned about.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
                picture = ImageOps.exif_transpose(picture).convert("RGB")
    except Exception as error:  # Pillow's decoders raise nearly everything on malformed files.
        raise DataError(f"{name}: cannot be read as a picture ({_reason(error)}); replace or remove it") from error
    return np.asarray(_resize(_centre(picture, crop), image_size))


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return "not a known picture format" if "cannot identify" in text else text or type(error).__name__


def _centre(picture: Image.Image, crop: int | None) -> Image.Image:
    width, height = picture.size
    side = crop if crop is not None and min(width, height) > crop else min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _resize(picture: Image.Image, image_size: int) -> Image.Image:
    if picture.size == (image_size, image_size):
        return picture
    return picture.resize((image_size, image_size), Image.Resampling.BICUBIC)


def resize_arrays(images: np.ndarray, image_size: int) -> np.ndarray:
    """Return uint8 [n, image_size, image_size, 3]; arrays are resized whole, never cropped."""
    if images.shape[1:3] == (image_size, image_size):
        return images
    resized = np.empty((len(images), image_size, image_size, 3), np.uint8)
    for i, image in enumerate(images):
        resized[i] = _resize(Image.fromarray(image), image_size)
    return resized
