"""Images at places between their pixels, by bilinear interpolation."""

import jax
import jax.numpy as jnp

from bloodcell_jax.augment.pixels import Scalar


def between_pixels(image: jax.Array, top: Scalar, left: Scalar, side: int) -> jax.Array:
    """Return the square [side, side, c] of an image whose upper left pixel lies at (top, left), between pixels."""
    row, column = jnp.floor(top), jnp.floor(left)
    window = jax.lax.dynamic_slice(
        image,
        (row.astype(jnp.int32), column.astype(jnp.int32), jnp.int32(0)),
        (side + 1, side + 1, image.shape[-1]),
    )
    rows = window[:-1] + (top - row) * (window[1:] - window[:-1])
    return rows[:, :-1] + (left - column) * (rows[:, 1:] - rows[:, :-1])


def sample(image: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """Return the values [h, w, c] of an image at places y, x [h, w]; outside the border is repeated."""
    height, width, channels = image.shape
    y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]
    pixels = image.reshape(-1, channels)

    def tap(dy: int, dx: int) -> jax.Array:
        row = jnp.minimum(top.astype(jnp.int32) + dy, height - 1)
        column = jnp.minimum(left.astype(jnp.int32) + dx, width - 1)
        return pixels.at[row * width + column].get(mode="promise_in_bounds")

    upper = tap(0, 0) + right * (tap(0, 1) - tap(0, 0))
    lower = tap(1, 0) + right * (tap(1, 1) - tap(1, 0))
    return upper + down * (lower - upper)
