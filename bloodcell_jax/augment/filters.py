"""Blur and noise, as lenses and sensors cause them.

dm-pix's `gaussian_blur` pads with zeros, which darkens the border, and refuses bfloat16. dm-pix has no noise.
"""

import functools
import operator
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from bloodcell_jax.augment.declaration import operation
from bloodcell_jax.augment.options import Number, Value
from bloodcell_jax.augment.pixels import Scalar, Strength, draw_amount, draw_normal, to_float32, to_unit_range


def _check_radius(given: Mapping[str, Value]) -> str | None:
    sigma, radius = given.get("sigma", 1.0), given.get("radius", 4.0)
    largest = sigma[1] if isinstance(sigma, tuple) else sigma
    assert not isinstance(largest, str)
    assert isinstance(radius, float | int)
    if 2 * largest > radius:
        return f"radius={radius:g} cuts off a Gaussian of sigma={largest:g}; give radius={4 * largest:.0f}"
    return None


@operation(check=_check_radius, sigma=Number(0, 16, drawn=True), radius=Number(1, 64, whole=True))
def gaussian_blur(key: jax.Array, image: jax.Array, *, sigma: Strength = 1.0, radius: int = 4) -> jax.Array:
    """Blur an image with a Gaussian of sigma pixels. The border is repeated outside.

    Args:
      key: random key of this image.
      image: [h, w, c].
      sigma: standard deviation in pixels, drawn uniformly from [0, sigma) or from the range (low, high).
      radius: distance in pixels at which the Gaussian is cut off, not traced. 4 times the largest sigma loses nothing.
        2 times makes the Gaussian visibly narrower.
    """
    return blur(image, draw_amount(key, sigma), radius=int(radius))


@operation(sigma=Number(0, 1, drawn=True))
def gaussian_noise(key: jax.Array, image: jax.Array, *, sigma: Strength = 0.05) -> jax.Array:
    """Add Gaussian noise to an image, a number of its own to each value.

    Args:
      key: random key of this image.
      image: [h, w, c].
      sigma: standard deviation in units of the full range, drawn uniformly from [0, sigma) or from (low, high).
    """
    sigma_key, noise_key = jax.random.split(key)
    noise = draw_amount(sigma_key, sigma) * draw_normal(noise_key, image.shape)
    return to_unit_range(to_float32(image) + noise, image.dtype)


def blur(image: jax.Array, sigma: Scalar, *, radius: int) -> jax.Array:
    """Return an image [h, w, c] blurred with a Gaussian of `sigma` pixels that is cut off at `radius`."""
    offsets = jnp.arange(-radius, radius + 1)
    # Below 0.05 pixels the weights of all neighbors underflow to 0. So this floor changes nothing and prevents 0 / 0.
    weights = jnp.exp(-0.5 * jnp.square(offsets / jnp.maximum(sigma, 1e-3)))
    weights = weights / weights.sum()
    height, width, channels = image.shape
    pixels = to_float32(image)
    # A convolution for each channel is slow on XLA's CPU backend. So these are sums of shifted rows of values. In a row
    # the next pixel is `channels` values on. Shifted rows of pixels are half as fast.
    for axis, step, size in ((0, 1, height), (1, channels, width * channels)):
        padding = [(radius, radius) if side == axis else (0, 0) for side in range(3)]
        padded = jnp.pad(pixels, padding, mode="edge")
        rows = padded.reshape(len(padded), -1)
        shifts = (jax.lax.slice_in_dim(rows, k * step, k * step + size, axis=axis) for k in range(2 * radius + 1))
        terms = (weight * shifted for weight, shifted in zip(weights, shifts, strict=True))
        pixels = functools.reduce(operator.add, terms).reshape(image.shape)
    return to_unit_range(pixels, image.dtype)
