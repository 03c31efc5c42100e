"""What lenses and sensors do to sharpness: blur and noise.

dm-pix's `gaussian_blur` pads with zeros, which darkens the border, and refuses bfloat16; it has no noise.
"""

import jax
import jax.numpy as jnp

from bloodcell_jax.augment.pixels import Strength, draw_amount, draw_normal, to_float32, to_unit_range


def gaussian_blur(key: jax.Array, image: jax.Array, *, sigma: Strength = 1.0, radius: int = 4) -> jax.Array:
    """Blur an image [h, w, c] with a Gaussian; its border is repeated outside.

    Args:
      sigma: standard deviation in pixels, drawn uniformly from [0, sigma) or from the range (low, high).
      radius: in pixels, where the Gaussian is cut off: 4 times the largest sigma loses nothing, 2 times makes it
        visibly narrower. Static.
    """
    return blur(image, draw_amount(key, sigma), radius=int(radius))


def gaussian_noise(key: jax.Array, image: jax.Array, *, sigma: Strength = 0.05) -> jax.Array:
    """Add to each value of an image [h, w, c] Gaussian noise of its own.

    Args:
      sigma: standard deviation in units of the full range, drawn uniformly from [0, sigma) or from (low, high).
    """
    sigma_key, noise_key = jax.random.split(key)
    noise = draw_amount(sigma_key, sigma) * draw_normal(noise_key, image.shape)
    return to_unit_range(to_float32(image) + noise, image.dtype)


def blur(image: jax.Array, sigma: jax.Array | float, *, radius: int) -> jax.Array:
    """Return an image [h, w, c] blurred with a Gaussian of `sigma` pixels, cut off at `radius`."""
    offsets = jnp.arange(-radius, radius + 1)
    # Below 0.05 pixels all neighbors' weights underflow to 0, so this floor changes nothing and spares 0 / 0.
    weights = jnp.exp(-0.5 * jnp.square(offsets / jnp.maximum(sigma, 1e-3)))
    weights = weights / weights.sum()
    height, width, channels = image.shape
    pixels = to_float32(image)
    # Sums of shifted rows of values, since a convolution per channel is what XLA's CPU backend is worst at; a pixel to
    # the right is `channels` values on. Rows of pixels are half as fast.
    for axis, step, size in ((0, 1, height), (1, channels, width * channels)):
        padding = [(radius, radius) if side == axis else (0, 0) for side in range(3)]
        padded = jnp.pad(pixels, padding, mode="edge")
        rows = padded.reshape(len(padded), -1)
        shifts = (jax.lax.slice_in_dim(rows, k * step, k * step + size, axis=axis) for k in range(2 * radius + 1))
        pixels = sum(weight * shifted for weight, shifted in zip(weights, shifts, strict=True)).reshape(image.shape)
    return to_unit_range(pixels, image.dtype)
