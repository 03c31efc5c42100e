"""Brightness, color, contrast and sharpness as Pillow's ImageEnhance defines them: a blend with a duller image.

At factor 0 an operation gives the duller image, at 1 the image itself, above 1 the opposite of dull. The duller images
are rounded to gray levels as Pillow rounds them; the result is within one level of Pillow's, which truncates it.
"""

import jax
import jax.numpy as jnp

from bloodcell_jax.augment.pixels import to_float32, to_gray, to_levels, to_unit_range


def enhance_brightness(image: jax.Array, *, factor: jax.Array | float) -> jax.Array:
    """Blend an image [h, w, c] with black."""
    return blend(image, black(image), factor)


def enhance_color(image: jax.Array, *, factor: jax.Array | float) -> jax.Array:
    """Blend an image [h, w, 3] with its gray version."""
    return blend(image, gray(image), factor)


def enhance_contrast(image: jax.Array, *, factor: jax.Array | float) -> jax.Array:
    """Blend an image [h, w, 3] with the mean of its gray version."""
    return blend(image, mean_gray(image), factor)


def sharpness(image: jax.Array, *, factor: jax.Array | float = 1.9) -> jax.Array:
    """Blend an image [h, w, c] with a smoothed one."""
    return blend(image, smooth(image), factor)


def blend(image: jax.Array, duller: jax.Array, factor: jax.Array | float, shift: jax.Array | float = 0.0) -> jax.Array:
    """Return `duller + factor * (image - duller) + shift`, clipped; `duller` may be broadcast."""
    return to_unit_range(duller + factor * (to_float32(image) - duller) + shift, image.dtype)


def black(image: jax.Array) -> jax.Array:
    """Return black, [1, 1, 1]."""
    return jnp.zeros((1, 1, 1))


def gray(image: jax.Array) -> jax.Array:
    """Return the gray version of an image [h, w, 3], [h, w, 1]."""
    return _gray_levels(image) / 255


def mean_gray(image: jax.Array) -> jax.Array:
    """Return the mean of the gray version of an image [h, w, 3], [1, 1, 1]."""
    # Sums of levels are exact in float32, in any order.
    return jnp.floor(_gray_levels(image).mean((0, 1), keepdims=True) + 0.5) / 255


def _gray_levels(image: jax.Array) -> jax.Array:
    return jnp.floor(to_gray(to_levels(image)) + 0.5)


def channel_means(image: jax.Array) -> jax.Array:
    """Return the mean of each channel of an image [h, w, c], [1, 1, c]."""
    return to_levels(image).mean((0, 1), keepdims=True) / 255


def smooth(image: jax.Array) -> jax.Array:
    """Return an image [h, w, c] under Pillow's SMOOTH: a 3x3 mean whose center counts five times; the border stays."""
    levels = to_levels(image)
    height, width, _ = levels.shape
    if min(height, width) < 3:
        return levels / 255
    rows = levels[:-2] + levels[1:-1] + levels[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * levels[1:-1, 1:-1]
    return levels.at[1:-1, 1:-1].set(jnp.round(total / 13)) / 255
