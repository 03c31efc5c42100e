"""Operations on gray levels as Pillow's ImageOps defines them on uint8, exact on the levels 0 to 255.

Each operation first rounds the values to levels. dm-pix's `solarize` compares the floats themselves, and in bfloat16 a
level may then lie on either side of a threshold that equals it. dm-pix has none of the other operations.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from bloodcell_jax.augment.declaration import operation
from bloodcell_jax.augment.options import Number
from bloodcell_jax.augment.pixels import Scalar, from_levels, to_levels


@operation(cheap=True)
def invert(image: jax.Array) -> jax.Array:
    """Turn an image into its negative, as Pillow does.

    Args:
      image: [h, w, c].
    """
    return from_levels(255 - to_levels(image), image.dtype)


@operation(cheap=True, bits=Number(0, 8, drawn=True))
def posterize(image: jax.Array, *, bits: Scalar = 4) -> jax.Array:
    """Keep the highest bits of each value of an image, as Pillow does.

    Args:
      image: [h, w, c].
      bits: number of bits, 0 to 8. A fraction is rounded.
    """
    step = jnp.exp2(8 - jnp.round(bits))
    return from_levels(jnp.floor(to_levels(image) / step) * step, image.dtype)


@operation(cheap=True, threshold=Number(0, 1.01, drawn=True))
def solarize(image: jax.Array, *, threshold: Scalar = 0.5) -> jax.Array:
    """Invert the values of an image that are at or above a threshold, as Pillow does.

    Args:
      image: [h, w, c].
      threshold: in units of the full range. A threshold above 1 inverts nothing.
    """
    levels = to_levels(image)
    # If the threshold is a level divided by 255, 1e-3 makes sure that it becomes that level again.
    lowest_inverted = jnp.ceil(threshold * 255 - 1e-3)
    return from_levels(jnp.where(levels < lowest_inverted, levels, 255 - levels), image.dtype)


def solarize_add(image: jax.Array, *, add: Scalar = 0.2, below: Scalar = 128 / 255) -> jax.Array:
    """Add `add` to the values of an image [h, w, c] that are less than `below`, both in units of the full range."""
    levels = to_levels(image)
    lowest_kept = jnp.ceil(below * 255 - 1e-3)
    return from_levels(jnp.where(levels < lowest_kept, levels + jnp.floor(add * 255 + 1e-3), levels), image.dtype)


@operation()
def autocontrast(image: jax.Array) -> jax.Array:
    """Stretch each channel of an image to the full range, as Pillow does. A channel of one value stays.

    Args:
      image: [h, w, c].
    """
    levels = to_levels(image)
    low, high = levels.min((0, 1)), levels.max((0, 1))
    grid = jnp.arange(256.0)[:, None]
    span = jnp.maximum(high - low, 1)
    # 255 * 255 is far below 2^24, so the floor of these quotients of whole numbers is exact in float32.
    stretched = jnp.floor((grid - low) * 255 / span + 1e-4)
    table = jnp.clip(stretched - _falls_short(low, high), 0, 255)
    return from_levels(_look_up(jnp.where(high > low, table, grid), levels), image.dtype)


@operation()
def equalize(image: jax.Array) -> jax.Array:
    """Flatten the histogram of each channel of an image, as Pillow does. A channel of one value stays.

    Args:
      image: [h, w, c].
    """
    levels = to_levels(image)
    counts = _histograms(levels)
    last = jnp.take_along_axis(counts, levels.max((0, 1)).astype(jnp.int32)[None], axis=0)
    step = (counts.sum(0) - last) // 255
    below = jnp.cumsum(counts, axis=0) - counts
    equalized = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    table = jnp.where(step > 0, equalized, jnp.arange(256)[:, None]).astype(jnp.float32)
    return from_levels(_look_up(table, levels), image.dtype)


def _histograms(levels: jax.Array) -> jax.Array:
    """Return how often each level occurs in each channel of levels [h, w, c], int32 [256, c]."""
    channels = levels.shape[-1]
    # One scatter handles all channels. A scatter for each channel takes 1.6 times as long on the CPU.
    places = levels.astype(jnp.int32) * channels + jnp.arange(channels)
    counts = jnp.zeros(256 * channels, jnp.int32).at[places.ravel()].add(1, mode="promise_in_bounds")
    return counts.reshape(256, channels)


def _look_up(table: jax.Array, levels: jax.Array) -> jax.Array:
    """Return the values [h, w, c] of a table [256, c] at levels [h, w, c]."""
    channels = jnp.arange(table.shape[1])
    return table.at[levels.astype(jnp.int32), channels].get(mode="promise_in_bounds")


def _falls_short(low: jax.Array, high: jax.Array) -> jax.Array:
    """Return 1 for each level at which Pillow's autocontrast is one less than the exact quotient, else 0, [256, c].

    Pillow truncates `level * scale + offset` in float64. If the exact quotient is whole, rounding can take it just
    below. This happens in 12,094 of 2.8 million cases. No float32 arithmetic reproduces them, so they are looked up.

    Args:
      low, high: lowest and highest level of each channel, [c].
    """
    rows, masks = _short_cases()
    mask = jnp.asarray(masks)[jnp.asarray(rows)[low.astype(jnp.int32), high.astype(jnp.int32)]]
    return jnp.unpackbits(mask, axis=-1).astype(jnp.float32).T


@functools.cache
def _short_cases() -> tuple[np.ndarray, np.ndarray]:
    """Return the cases that fall short, as rows [256, 256] and masks [k, 32].

    `rows[low, high]` is the row of `masks` that holds a bit for each of the 256 levels.
    """
    low, high = (bound[:, None] for bound in np.triu_indices(256, 1))
    level, span = np.arange(256), high - low
    scale = 255.0 / span
    truncated = np.trunc(level * scale + -low * scale).astype(np.int32)
    used = (low <= level) & (level <= high)
    bits = np.packbits(used & (truncated < (level - low) * 255 // span), axis=-1)
    masks, pair_rows = np.unique(bits, axis=0, return_inverse=True)
    rows = np.zeros((256, 256), np.int16)
    rows[low[:, 0], high[:, 0]] = pair_rows.ravel()
    return rows, masks
