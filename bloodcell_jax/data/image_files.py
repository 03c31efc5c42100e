"""Decoding image files and bringing them to the network's geometry."""

import contextlib
import importlib
import importlib.util
import io
import logging
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, features

from bloodcell_jax.data.file_trees import UnreadableFile
from bloodcell_jax.data.geometry import Geometry
from bloodcell_jax.data.pixel_levels import BLACK, Levels, fault_of, has_one_color, highest_alpha, levels_of, to_rgb

logger = logging.getLogger(__name__)

# Formats of one raster image. Documents, vector graphics, icons, textures and the raw data of cameras are none.
_FORMATS = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "MPO": (".mpo",),
    "PCX": (".pcx",),
    "PNG": (".png",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "QOI": (".qoi",),
    "SGI": (".sgi",),
    "TGA": (".tga",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}


def _readable_suffixes() -> frozenset[str]:
    """Return the suffixes of `_FORMATS` that Pillow can open here: its builds differ, and HEIF is a package."""
    if importlib.util.find_spec("pillow_heif") is not None:
        importlib.import_module("pillow_heif").register_heif_opener()
    # The usual formats are then tried first: 0.29 instead of 0.34 ms for a JPEG of 96 px.
    Image.preinit()
    registered = Image.registered_extensions()
    without = () if features.check("jpg_2000") else ("JPEG2000",)  # It is registered in any case.
    listed = ((kind, suffix) for kind, suffixes in _FORMATS.items() for suffix in suffixes if kind not in without)
    return frozenset(suffix for kind, suffix in listed if registered.get(suffix) == kind)


SUFFIXES = _readable_suffixes()

T = TypeVar("T")

# A file of Pillow's 89 million pixels takes a gigabyte and more while it is decoded, and several threads do that: files
# above these pixels are decoded one at a time.
_LARGE, _LARGE_PIXELS = threading.Lock(), 2**23
# Progressive JPEGs have ten scans or so.
_MOST_SCANS = 500
# Pages of a TIFF.
_MOST_COUNTED = 10

# Pillow warns of more. Anyone may filter its warning, for the whole process; so the pixels are counted here.
_MOST_PIXELS = 89_478_485
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class DecodedImage(NamedTuple):
    """An image file in the network's geometry.

    Attributes:
      pixels: uint8 [image_size, image_size, 3].
      width, height: pixels of the upright file.
      side: of the square that was looked at, in pixels of the file; the shorter side of a file that was taken whole.
    """

    pixels: np.ndarray
    width: int
    height: int
    side: int


def decode(content: bytes, name: str, geometry: Geometry) -> np.ndarray:
    """Decode an image file to uint8 [image_size, image_size, 3], see `decode_sized`."""
    return decode_sized(content, name, geometry).pixels


def decode_sized(
    content: bytes,
    name: str,
    geometry: Geometry,
    *,
    whole: bool = False,
    note: Callable[[str], None] = logger.info,
) -> DecodedImage:
    """Decode an image file and bring it to the network's geometry.

    The image is cropped to the centered square that `geometry` says, and that is resized, bicubic with antialiasing.

    The image is turned as its EXIF says, laid on white if it is transparent, and brought to 8 bits. An animation gives
    its first frame.

    Args:
      content, name: the file.
      geometry: the network's.
      whole: the image is not cropped, not even to a square.
      note: takes a line on what was left out of the file; unset: the log.

    Raises:
      UnreadableFile: the content cannot be decoded, or shows nothing: it is black, transparent or of one color, or has
        16 bits of which a camera filled fewer. The error names the file and the reason.
    """
    if not content:
        raise UnreadableFile(name, "an empty file")
    try:
        with open_image(content) as image:
            _check_scans(image, content)
            frames = _count_frames(image)
            decoded = _alone_if_large(image, lambda: to_geometry(image, geometry, whole=whole))
    except UnreadableFile:
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything on malformed files.
        raise UnreadableFile(name, _reason(error)) from error
    if frames > 1:
        shown = f"more than {_MOST_COUNTED}" if image.format == "TIFF" and frames > _MOST_COUNTED else frames
        note(f"{name}: {shown} frames; the first is taken")
    return decoded


def decode_to_show(content: bytes, name: str, longest: int) -> np.ndarray:
    """Decode an image file as a viewer shows it, uint8 [h, w, 3]; no side has more than `longest` pixels.

    Raises:
      UnreadableFile: the content cannot be decoded.
    """
    try:
        with open_image(content) as image:
            _check_scans(image, content)
            return _alone_if_large(image, lambda: _thumbnail(image, longest))
    except Exception as error:  # Pillow's decoders raise nearly everything on malformed files.
        raise UnreadableFile(name, _reason(error)) from error


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """Encode an image, uint8 [h, w, 3], for a page: no difference is visible, at a fifth of the size of a PNG."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "jpeg", quality=92, subsampling=0)
    return content.getvalue()


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode an image, uint8 [h, w, 3], without loss."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def open_image(content: bytes) -> ImageFile.ImageFile:
    """Open the content of an image file; no pixel is decoded yet.

    Raises:
      ValueError: it has more pixels than a file may have.
      Exception: anything, as Pillow's readers do on malformed files.
    """
    image = Image.open(io.BytesIO(content))
    if image.width * image.height > _MOST_PIXELS:
        raise ValueError(f"{image.width:,} x {image.height:,} pixels; at most {_MOST_PIXELS:,} are read")
    return image


def _thumbnail(image: ImageFile.ImageFile, longest: int) -> np.ndarray:
    levels = levels_of(image)
    shown = to_rgb(_upright(image), levels)
    shown.thumbnail((longest, longest), Image.Resampling.BICUBIC)
    return np.asarray(shown)


def _alone_if_large(image: Image.Image, decode: Callable[[], T]) -> T:
    """Return what `decode` makes of an image; large images are decoded one at a time.

    A thread of its own does it, which takes over the heap of the one before. Each thread of the pool would keep one.
    """
    if image.width * image.height <= _LARGE_PIXELS:
        return decode()
    with _LARGE, ThreadPoolExecutor(1) as pool:
        return pool.submit(decode).result()


def _check_scans(image: Image.Image, content: bytes) -> None:
    """Refuse a JPEG that would take hours: each scan of a progressive one goes over all pixels again."""
    if image.format in ("JPEG", "MPO") and (scans := content.count(b"\xff\xda")) > _MOST_SCANS:
        raise ValueError(f"{scans:,} scans; at most {_MOST_SCANS} are read")


def _count_frames(image: Image.Image) -> int:
    """Return the number of frames; pages of a TIFF are counted up to one more than `_MOST_COUNTED`."""
    if image.format == "MPO":  # Its other pictures are views of the same.
        return 1
    if image.format != "TIFF":
        return getattr(image, "n_frames", 1)
    # Pillow counts them in quadratic time: minutes for 50,000 pages, which have 5 MB.
    frames = 1
    with contextlib.suppress(EOFError):
        for frames in range(1, _MOST_COUNTED + 1):
            image.seek(frames)
        frames += 1
    image.seek(0)
    return frames


def to_geometry(image: Image.Image, geometry: Geometry, *, whole: bool = False) -> DecodedImage:
    """Bring an opened image to the network's geometry, see `decode_sized`.

    Args:
      whole: the image is not cropped, not even to a square.

    Raises:
      ValueError: it shows nothing, or has more than 8 bits and was not opened from a file.
    """
    if not isinstance(image, ImageFile.ImageFile) and image.mode.startswith(("I", "F")):
        raise ValueError(f"mode {image.mode}: more than 8 bits, of which the range is not known; convert it to 8 bits")
    levels = levels_of(image) if isinstance(image, ImageFile.ImageFile) else Levels(255)
    turned = _upright(image)
    width, height = turned.size
    side = min(width, height) if whole else geometry.side(width, height)
    # The crop comes first: colors are then converted only inside it.
    square = turned if whole else _center(turned, side)
    rgb = to_rgb(square, levels)
    _check_shows_something(square, rgb, "it" if square.size == turned.size else "its middle")
    return DecodedImage(np.asarray(_resize(rgb, geometry.image_size)), width, height, side)


def _upright(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF says; one that stands upright is not copied."""
    is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    return ImageOps.exif_transpose(image) if is_turned else image


def _check_shows_something(square: Image.Image, rgb: Image.Image, subject: str) -> None:
    """Refuse a square of a file that shows nothing.

    Raises:
      ValueError: says what was found in `subject`.
    """
    alpha = highest_alpha(square)
    if alpha <= BLACK:
        raise ValueError(f"{subject} is transparent: alpha is {alpha} of 255 at most; save it without alpha")
    pixels = np.asarray(rgb)
    if fault := fault_of(pixels[None]):
        raise ValueError(f"{subject} shows nothing: {fault}; scale it to 0 to 255")
    # Even an empty field has noise under a microscope. The 13,663 cells of PBC span at least 95 levels each.
    if has_one_color(pixels):
        raise ValueError(f"{subject} has one color: {', '.join(map(str, pixels[0, 0]))}")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return "not a known image format" if "cannot identify" in text else text or type(error).__name__


def _center(image: Image.Image, side: int) -> Image.Image:
    if image.size == (side, side):
        return image
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _resize(image: Image.Image, image_size: int) -> Image.Image:
    if image.size == (image_size, image_size):
        return image
    return image.resize((image_size, image_size), Image.Resampling.BICUBIC)


def crop_arrays(images: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Crop images of uint8 [n, h, w, 3] to the centered square that files of their size are cropped to."""
    height, width = images.shape[1:3]
    side = geometry.side(width, height)
    top, left = (height - side) // 2, (width - side) // 2
    return images[:, top : top + side, left : left + side]


def resize_arrays(images: np.ndarray, image_size: int) -> np.ndarray:
    """Resize images of uint8 [n, h, w, 3] to [n, image_size, image_size, 3]; arrays are never cropped."""
    if images.shape[1:3] == (image_size, image_size):
        return images
    resized = np.empty((len(images), image_size, image_size, 3), np.uint8)
    for i, array in enumerate(images):
        resized[i] = np.asarray(_resize(Image.fromarray(array), image_size))
    return resized
