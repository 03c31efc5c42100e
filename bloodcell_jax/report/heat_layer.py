"""A map over an image, as a transparent picture that a page lays over it."""

import io

import numpy as np
from PIL import Image

from bloodcell_jax.report.rendering import png_address

# Pixels a side; the page stretches it to the image.
_SIDE = 96
# One color, ever less transparent: the order of the shades is seen without seeing colors. On an image in gray.
_COLOR = (213, 94, 0)
_DENSEST = 0.8
_SHADES = 32
# A white line encloses what is above this share of the highest value.
_LINE = 0.5


def heat_layer(values: np.ndarray) -> str | None:
    """Return the address of a PNG that covers an image where a map [h, w] is high; None: it is nowhere above 0.

    Values below 0 are as transparent as 0. The values stand in the middles of equal cells of the image; between them,
    the layer is smooth.
    """
    values = np.maximum(values, 0)
    if values.max() == 0:
        return None
    shares = (values / values.max()).astype(np.float32)
    smooth = np.asarray(Image.fromarray(shares).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
    shares = np.clip(smooth / smooth.max(), 0, 1)
    shades = np.rint(shares * (_SHADES - 1)).astype(np.uint8)
    shades[_outline(shares >= _LINE)] = _SHADES
    picture = Image.fromarray(shades, "P")
    picture.putpalette([*_COLOR * _SHADES, 255, 255, 255])
    alphas = [round(255 * _DENSEST * shade / (_SHADES - 1)) for shade in range(_SHADES)]
    content = io.BytesIO()
    picture.save(content, "png", transparency=bytes([*alphas, 255]), optimize=True)
    return png_address(content.getvalue())


def _outline(inside: np.ndarray) -> np.ndarray:
    """Return the pixels of a region [h, w] that have a neighbor outside; the border of the image is no outside."""
    padded = np.pad(inside, 1, mode="edge")
    whole = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~whole
