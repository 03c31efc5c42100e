"""Operations on gray levels, as Pillow's ImageOps define them on uint8: exact on the 0..255 grid.

Values are first rounded to levels. dm-pix's `solarize` compares the floats themselves, which in bfloat16 puts a level
on either side of its own threshold; the others do not exist there.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from bloodcell_jax.augment.pixels import from_levels, to_levels


def invert(image: jax.Array) -> jax.Array:
    """Return the negative of an image [h, w, c]."""
    return from_levels(255 - to_levels(image), image.dtype)


def posterize(image: jax.Array, *, bits: jax.Array | float = 4) -> jax.Array:
    """Keep the highest `bits`, 0 to 8, of each value of an image [h, w, c]; a fraction is rounded."""
    step = jnp.exp2(8 - jnp.round(bits))
    return from_levels(jnp.floor(to_levels(image) / step) * step, image.dtype)


def solarize(image: jax.Array, *, threshold: jax.Array | float = 0.5) -> jax.Array:
    """Invert the values of an image [h, w, c] at or above a threshold in units of the full range, 0 to above 1."""
    levels = to_levels(image)
    # A threshold that is a level divided by 255 must be that level again.
    lowest_inverted = jnp.ceil(threshold * 255 - 1e-3)
    return from_levels(jnp.where(levels < lowest_inverted, levels, 255 - levels), image.dtype)


def solarize_add(image: jax.Array, *, add: jax.Array | float = 0.2, below: jax.Array | float = 128 / 255) -> jax.Array:
    """Add `add` to the values of an image [h, w, c] that lie under `below`, both in units of the full range."""
    levels = to_levels(image)
    lowest_kept = jnp.ceil(below * 255 - 1e-3)
    return from_levels(jnp.where(levels < lowest_kept, levels + jnp.floor(add * 255 + 1e-3), levels), image.dtype)


def autocontrast(image: jax.Array) -> jax.Array:
    """Stretch each channel of an image [h, w, c] to the full range; a channel of one value stays."""
    levels = to_levels(image)
    low, high = levels.min((0, 1)), levels.max((0, 1))
    grid = jnp.arange(256.0)[:, None]
    span = jnp.maximum(high - low, 1)
    # 255 * 255 / 1 is far below 2^24, so these divisions of whole numbers floor exactly in float32.
    stretched = jnp.floor((grid - low) * 255 / span + 1e-4)
    table = jnp.clip(stretched - _falls_short(low, high), 0, 255)
    return from_levels(_look_up(jnp.where(high > low, table, grid), levels), image.dtype)


def equalize(image: jax.Array) -> jax.Array:
    """Flatten the histogram of each channel of an image [h, w, c]; a channel of one value stays."""
    levels = to_levels(image)
    counts = _histograms(levels)
    last = jnp.take_along_axis(counts, levels.max((0, 1)).astype(jnp.int32)[None], axis=0)
    step = (counts.sum(0) - last) // 255
    below = jnp.cumsum(counts, axis=0) - counts
    equalized = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    table = jnp.where(step > 0, equalized, jnp.arange(256)[:, None]).astype(jnp.float32)
    return from_levels(_look_up(table, levels), image.dtype)


def _histograms(levels: jax.Array) -> jax.Array:
    """Return how often each level stands in each channel of levels [h, w, c], int32 [256, c]."""
    channels = levels.shape[-1]
    # One scatter for all channels: a scatter for each takes 1.6 times as long on the CPU.
    places = levels.astype(jnp.int32) * channels + jnp.arange(channels)
    counts = jnp.zeros(256 * channels, jnp.int32).at[places.ravel()].add(1, mode="promise_in_bounds")
    return counts.reshape(256, channels)


def _look_up(table: jax.Array, levels: jax.Array) -> jax.Array:
    """Return the values [h, w, c] of a table [256, c] at levels [h, w, c]."""
    channels = jnp.arange(table.shape[1])
    return table.at[levels.astype(jnp.int32), channels].get(mode="promise_in_bounds")


def _falls_short(low: jax.Array, high: jax.Array) -> jax.Array:
    """Return 1 where Pillow's autocontrast is one less than the quotient it computes, by level, [256, c].

    Pillow truncates `level * scale + offset`, in float64. Where the quotient is whole, rounding can take it just
    below: 12,094 of the 2.8 million cases, which no float32 arithmetic reproduces, so they are looked up.
    """
    rows, masks = _short_cases()
    mask = jnp.asarray(masks)[jnp.asarray(rows)[low.astype(jnp.int32), high.astype(jnp.int32)]]
    return jnp.unpackbits(mask, axis=-1).astype(jnp.float32).T


@functools.cache
def _short_cases() -> tuple[np.ndarray, np.ndarray]:
    """Return, for each [low, high], which row of [k, 32] holds the 256 bits of its levels that fall short."""
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
