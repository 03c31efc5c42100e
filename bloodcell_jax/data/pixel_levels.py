"""Levels of images: any Pillow mode becomes 8 bits, and images whose levels show nothing are found."""

import re
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, TiffTags

# Levels of 255 that count as black. 12 bits of a camera in a file of 16 end here (4,095 of 65,535 is 16 of 255), and
# images that were divided by 255 and cast, or divided twice, end at 1. The brightest level of an image is at least 228
# in 13,663 cells of PBC, 255 in another laboratory's 300, and 188 in the drawn cells.
BLACK = 16
# Rows that are looked at together.
_STRIP = 64

# Pillow keeps the high byte of 16 bits per channel and gives a mode of 8. ("BGR;16" of BMP is 16 bits in all.)
_SIXTEEN_PER_CHANNEL = re.compile(r"(L|LA|RGB|RGBX|RGBA|RGBa|CMYK);16[BLN]?")


class Levels(NamedTuple):
    """How the levels of an opened image are meant.

    Attributes:
      white: the level of white: 255, or more in the modes of more than 8 bits.
      white_is_zero: the levels count down from white, and Pillow does not turn them.
    """

    white: int
    white_is_zero: bool = False


def levels_of(image: ImageFile.ImageFile) -> Levels:
    """Return how the levels of an image are meant that was opened, but not yet loaded; loads it.

    Raises:
      ValueError: the image has 32 bits per pixel; or it has 16 that are filled to a quarter at most, or that are stored
        in a plane for each color.
    """
    _check_planes(image)
    decoder, raw_mode, maximum = _stored_as(image)
    # Pillow widens the 16 bits of these formats.
    is_wide = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG"))
    if image.mode in ("I", "F") and not is_wide:
        # Nobody knows their range; Pillow would cut it off at 255.
        raise ValueError("32 bits per pixel; save it with 8 or 16")
    # Cameras of 10, 12 and 14 bits leave the top of 16 bits empty: all cells would be black or nearly so. 14 bits end
    # at a quarter. No cell that fills its range is that dark: the darkest found reaches 188 of 255 (see BLACK).
    if is_wide:
        white = 4095 if raw_mode == "I;12" else 65535
        _check_filled(int(np.asarray(image).max()), white, white.bit_length())
        # Pillow turns such images of 8 bits, not those of 16.
        turned = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
        return Levels(white, turned)
    if _SIXTEEN_PER_CHANNEL.fullmatch(raw_mode) or (decoder.startswith("ppm") and maximum > 255):
        colors = [band for name, band in zip(image.getbands(), image.split(), strict=True) if name not in "Aa"]
        _check_filled(max(int(np.asarray(band).max()) for band in colors), 255, 16)
    return Levels(255)


_TIFF_TAGS = {info.name: tag for tag, info in TiffTags.TAGS_V2.items()}
_PHOTOMETRIC, _BITS, _PLANES = (
    _TIFF_TAGS[name] for name in ("PhotometricInterpretation", "BitsPerSample", "PlanarConfiguration")
)


def _check_planes(image: ImageFile.ImageFile) -> None:
    """Refuse an uncompressed TIFF with a plane for each color of 16 bits: Pillow takes its bytes for values of 8."""
    is_raw = image.format == "TIFF" and getattr(image, "tile", None) and image.tile[0][0] == "raw"
    tags = getattr(image, "tag_v2", {}) if is_raw else {}
    bits = max(tags.get(_BITS, (8,)))
    if tags.get(_PLANES) == 2 and bits > 8:
        raise ValueError(
            f"{bits} bits in a plane for each color, uncompressed; save it with the colors of a pixel side by side"
        )


def _stored_as(image: ImageFile.ImageFile) -> tuple[str, str, int]:
    """Return Pillow's decoder, the mode of the stored bytes, and the highest level that a PPM declares; or nothing."""
    if not getattr(image, "tile", None):
        return "", "", 0
    decoder, arguments = image.tile[0][0], image.tile[0][3]
    arguments = arguments if isinstance(arguments, tuple) else (arguments,)
    raw_mode = arguments[0] if arguments and isinstance(arguments[0], str) else ""
    maximum = arguments[1] if decoder.startswith("ppm") and len(arguments) > 1 else 0
    return decoder, raw_mode, maximum if isinstance(maximum, int) else 0


def _check_filled(brightest: int, white: int, bits: int) -> None:
    if brightest <= (white + 1) // 4:
        used = min(max(1, brightest.bit_length()) + bits - white.bit_length(), bits - 2)
        raise ValueError(
            f"its brightest value is {brightest} of {white}: {used} of {bits} bits; scale it to all {bits}, or save it "
            "with 8"
        )


def to_rgb(image: Image.Image, levels: Levels) -> Image.Image:
    """Convert a Pillow image of any mode to 8-bit RGB; what is transparent lies on white."""
    if levels.white > 255:
        gray = np.asarray(image).astype(np.uint32)
        gray = np.minimum(levels.white - gray if levels.white_is_zero else gray, levels.white)
        return Image.fromarray(((gray * 255 + levels.white // 2) // levels.white).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def highest_alpha(image: Image.Image) -> int:
    """Return the highest alpha of a Pillow image, 255 if it has none."""
    return int(np.asarray(image.convert("RGBA"))[..., 3].max()) if image.has_transparency_data else 255


def has_one_color(image: np.ndarray) -> bool:
    """Return whether all pixels of an image [h, w, 3] are equal."""
    first = image[0, 0]
    return bool((image[0] == first).all() and (image == first).all())  # One row says no for nearly every image.


def fault_of(images: np.ndarray) -> str | None:
    """Return why images uint8 [n, h, w, 3] together show nothing, or None. The first good image ends the search."""
    # The first rows say it of nearly every image.
    strips = (image[start : start + _STRIP] for image in images for start in range(0, len(image), _STRIP))
    if len(images) == 0 or any(((strip > BLACK) & (strip < 255 - BLACK)).any() for strip in strips):
        return None
    darkest, brightest = int(images.min()), int(images.max())
    if brightest <= BLACK:
        return f"the brightest value is {brightest} of 255"
    # Black and white alone are a drawing, and nearly white is an empty slide.
    if darkest > BLACK or ((images == 0) | (images == 255)).all():
        return None
    return f"all values lie in 0 to {BLACK} or {255 - BLACK} to 255, as if numbers around 0 were cast to uint8"
