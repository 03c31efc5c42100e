"""Decoding pictures and bringing them to the network's geometry."""

import io
import logging
import warnings

import numpy as np
from PIL import Image, ImageOps

from bloodcell_jax.data.file_trees import UnreadableFile

logger = logging.getLogger(__name__)

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm"))

# A decompression bomb is refused, not warned about: for the process, since filters are no thread's own.
warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode(content: bytes, name: str, *, image_size: int, crop: int | None) -> np.ndarray:
    """Return the picture as uint8 [image_size, image_size, 3].

    A picture larger than `crop` on both sides is centre-cropped to crop x crop, any other to its centred square;
    then it is resized, bicubic with antialiasing. It is turned as its EXIF says, laid on white where it is
    transparent, and brought to 8 bits; of an animation the first frame is taken, and that is logged.

    Raises:
      UnreadableFile: it cannot be decoded; `name` and the reason are named.
    """
    if not content:
        raise UnreadableFile(name, "an empty file")
    try:
        with Image.open(io.BytesIO(content)) as picture:
            frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
            turned = ImageOps.exif_transpose(picture)
            # Cropped first: colours are then converted where they are looked at.
            pixels = _resize(to_rgb(_centre(turned, crop), picture.format), image_size)
    except UnreadableFile:
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything on malformed files.
        raise UnreadableFile(name, _reason(error)) from error
    if frames > 1:
        logger.info("%s: %d frames; the first is taken", name, frames)
    return np.asarray(pixels)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return "not a known picture format" if "cannot identify" in text else text or type(error).__name__


def to_rgb(picture: Image.Image, file_format: str) -> Image.Image:
    """Return any kind of picture as 8-bit RGB."""
    # Pillow widens the 16 bits of these formats.
    is_deep = picture.mode.startswith("I;16") or (picture.mode == "I" and file_format in ("PPM", "PNG"))
    if picture.mode in ("I", "F") and not is_deep:
        # Their range is anybody's guess; Pillow would cut it off at 255.
        raise ValueError("32 bits per pixel; save it with 8 or 16")
    if is_deep:
        grey = np.asarray(picture).astype(np.uint32)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


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
