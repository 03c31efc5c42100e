"""What the pixels say: operations on brightness, contrast and colour.

Each draws its strength from the key, computes in float32 (in bfloat16 dm-pix's trip through HSV is off by up to 10
grey levels, its hue returns float32 and contrast's mean drifts), clips to [0, 1], as dm-pix does not, and returns the
image's own dtype.

A strength `delta` is the largest change either way, drawn uniformly from [-delta, delta), or the range (low, high)
to draw from. It may be traced; 0 changes nothing.
"""

import dm_pix as pix
import jax

from bloodcell_jax.augment.pixels import Strength, draw, to_float32, to_unit_range


def brightness(key: jax.Array, image: jax.Array, *, delta: Strength = 0.2) -> jax.Array:
    """Add one number to all values of an image [h, w, c], in units of the full range."""
    return to_unit_range(pix.adjust_brightness(to_float32(image), draw(key, delta)), image.dtype)


def contrast(key: jax.Array, image: jax.Array, *, delta: Strength = 0.2) -> jax.Array:
    """Multiply the distance of an image [h, w, c] from each channel's mean by 1 + the strength."""
    return to_unit_range(pix.adjust_contrast(to_float32(image), 1 + draw(key, delta)), image.dtype)


def saturation(key: jax.Array, image: jax.Array, *, delta: Strength = 0.2) -> jax.Array:
    """Multiply the saturation (HSV) of an image [h, w, 3] by 1 + the strength; hue and value stay."""
    return to_unit_range(pix.adjust_saturation(to_float32(image), 1 + draw(key, delta)), image.dtype)


def hue(key: jax.Array, image: jax.Array, *, delta: Strength = 0.02) -> jax.Array:
    """Turn the hue (HSV) of an image [h, w, 3] by a part of the colour circle; saturation and value stay."""
    return to_unit_range(pix.adjust_hue(to_float32(image), draw(key, delta)), image.dtype)
