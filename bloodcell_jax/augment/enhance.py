"""Brightness, color, contrast and sharpness as Pillow's ImageEnhance defines them: a blend with a duller image.

Factor 0 gives the duller image, factor 1 gives the image itself, and a factor above 1 gives the opposite of dull. The
duller image is rounded to gray levels as Pillow rounds it. The result is within one level of Pillow's, which truncates.
"""

import jax
import jax.numpy as jnp

from bloodcell_jax.augment.declaration import operation
from bloodcell_jax.augment.options import Number
from bloodcell_jax.augment.pixels import Scalar, to_float32, to_gray, to_levels, to_unit_range


def enhance_brightness(image: jax.Array, *, factor: Scalar) -> jax.Array:
    """Blend an image [h, w, c] with black."""
    return blend(image, black(image), factor)


def enhance_color(image: jax.Array, *, factor: Scalar) -> jax.Array:
    """Blend an image [h, w, 3] with its gray version."""
    return blend(image, gray(image), factor)


def enhance_contrast(image: jax.Array, *, factor: Scalar) -> jax.Array:
    """Blend an image [h, w, 3] with the mean of its gray version."""
    return blend(image, mean_gray(image), factor)


@operation(factor=Number(0, 10, drawn=True))
def sharpness(image: jax.Array, *, factor: Scalar = 1.9) -> jax.Array:
    """Sharpen an image, or smooth it at a factor below 1, as Pillow's ImageEnhance does.

    Args:
      image: [h, w, c].
      factor: 0 gives the smoothed image, 1 the image itself.
    """
    return blend(image, smooth(image), factor)


def blend(image: jax.Array, duller: jax.Array, factor: Scalar, shift: Scalar = 0.0) -> jax.Array:
    """Return `duller + factor * (image - duller) + shift`, clipped. `duller` may be broadcast."""
    return to_unit_range(duller + factor * (to_float32(image) - duller) + shift, image.dtype)


def black(image: jax.Array) -> jax.Array:
    """Return black as [1, 1, 1]."""
    return jnp.zeros((1, 1, 1))


def gray(image: jax.Array) -> jax.Array:
    """Return the gray version [h, w, 1] of an image [h, w, 3]."""
    return _gray_levels(image) / 255


def mean_gray(image: jax.Array) -> jax.Array:
    """Return the mean [1, 1, 1] of the gray version of an image [h, w, 3]."""
    # A sum of levels is exact in float32 in any order.
    return jnp.floor(_gray_levels(image).mean((0, 1), keepdims=True) + 0.5) / 255


def _gray_levels(image: jax.Array) -> jax.Array:
    return jnp.floor(to_gray(to_levels(image)) + 0.5)


def channel_means(image: jax.Array) -> jax.Array:
    """Return the mean [1, 1, c] of each channel of an image [h, w, c]."""
    return to_levels(image).mean((0, 1), keepdims=True) / 255


def smooth(image: jax.Array) -> jax.Array:
    """Return an image [h, w, c] after Pillow's SMOOTH: a 3x3 mean whose center counts five times. The border stays."""
    levels = to_levels(image)
    height, width, _ = levels.shape
    if min(height, width) < 3:
        return levels / 255
    rows = levels[:-2] + levels[1:-1] + levels[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * levels[1:-1, 1:-1]
    return levels.at[1:-1, 1:-1].set(jnp.round(total / 13)) / 255
