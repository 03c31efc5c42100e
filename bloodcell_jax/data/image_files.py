"""Decoding image files and bringing them to the network's geometry."""

import io
import logging
import warnings

import numpy as np
from PIL import Image, ImageOps

from bloodcell_jax.data.file_trees import UnreadableFile

logger = logging.getLogger(__name__)

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm"))

# Threads that decode at the same time: Pillow releases the interpreter lock while it decodes.
DECODING_THREADS = 8

# A decompression bomb is an error, not a warning. This holds for the whole process: a thread has no filters of its own.
warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode(content: bytes, name: str, *, image_size: int, crop: int | None) -> np.ndarray:
    """Decode an image file to uint8 [image_size, image_size, 3].

    An image that is larger than `crop` on both sides is center-cropped to crop x crop. Any other image is cropped to
    its centered square. The square is then resized, bicubic with antialiasing.

    The image is turned as its EXIF says, laid on white if it is transparent, and brought to 8 bits. An animation gives
    its first frame, and the log says so.

    Raises:
      UnreadableFile: the content cannot be decoded; names the file and the reason.
    """
    if not content:
        raise UnreadableFile(name, "an empty file")
    try:
        with Image.open(io.BytesIO(content)) as image:
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            turned = ImageOps.exif_transpose(image)
            # The crop comes first: colors are then converted only inside it.
            decoded = _resize(to_rgb(_center(turned, crop), image.format), image_size)
    except UnreadableFile:
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything on malformed files.
        raise UnreadableFile(name, _reason(error)) from error
    if frames > 1:
        logger.info("%s: %d frames; the first is taken", name, frames)
    return np.asarray(decoded)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return "not a known image format" if "cannot identify" in text else text or type(error).__name__


def to_rgb(image: Image.Image, file_format: str | None) -> Image.Image:
    """Convert a Pillow image of any mode to 8-bit RGB.

    Args:
      image: the image.
      file_format: Pillow's name of the format that it was read from.

    Raises:
      ValueError: the image has 32 bits per pixel.
    """
    # Pillow widens the 16 bits of these formats.
    is_deep = image.mode.startswith("I;16") or (image.mode == "I" and file_format in ("PPM", "PNG"))
    if image.mode in ("I", "F") and not is_deep:
        # Nobody knows their range; Pillow would cut it off at 255.
        raise ValueError("32 bits per pixel; save it with 8 or 16")
    if is_deep:
        gray = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((gray + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _center(image: Image.Image, crop: int | None) -> Image.Image:
    width, height = image.size
    side = crop if crop is not None and min(width, height) > crop else min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _resize(image: Image.Image, image_size: int) -> Image.Image:
    if image.size == (image_size, image_size):
        return image
    return image.resize((image_size, image_size), Image.Resampling.BICUBIC)


def resize_arrays(images: np.ndarray, image_size: int) -> np.ndarray:
    """Resize images of uint8 [n, h, w, 3] to [n, image_size, image_size, 3]; arrays are never cropped."""
    if images.shape[1:3] == (image_size, image_size):
        return images
    resized = np.empty((len(images), image_size, image_size, 3), np.uint8)
    for i, array in enumerate(images):
        resized[i] = np.asarray(_resize(Image.fromarray(array), image_size))
    return resized
