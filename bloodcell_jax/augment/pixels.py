"""What operations share: the pixels they take and give, floats in [0, 1] of any float type, and drawn strengths."""

import math

import jax
import jax.numpy as jnp

from bloodcell_jax.errors import UsageError

# The largest change either way, or the range (low, high) to draw from; either may be traced.
Strength = float | jax.Array | tuple[float, float]

# Rec. 601 as Pillow has it: 16-bit fixed point.
_LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)


def to_float32(image: jax.Array) -> jax.Array:
    """Return an image in the type operations compute in.

    Raises:
      UsageError: the image is not of floats.
    """
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise UsageError(f"an image of {image.dtype} is not float in [0, 1]; divide images of uint8 by 255 first")
    return jnp.asarray(image, jnp.float32)


def to_unit_range(image: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Return a computed image clipped to [0, 1], in the type it came in."""
    return jnp.clip(image, 0, 1).astype(dtype)


def draw(key: jax.Array, strength: Strength, shape: tuple[int, ...] = ()) -> jax.Array:
    """Return numbers drawn uniformly from [-strength, strength), or from [low, high) where it is a range."""
    low, high = strength if isinstance(strength, tuple) else (-strength, strength)
    return jax.random.uniform(key, shape, minval=low, maxval=high)


def draw_amount(key: jax.Array, amount: Strength) -> jax.Array:
    """Return a number drawn uniformly from [0, amount), or from [low, high) where it is a range."""
    return draw(key, amount if isinstance(amount, tuple) else (0.0, amount))


def draw_setting(key: jax.Array, setting: Strength) -> jax.Array:
    """Return a setting that has no 0 to start from: itself, or drawn uniformly from [low, high) where it is a range."""
    return draw(key, setting if isinstance(setting, tuple) else (setting, setting))


def draw_normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return numbers [*shape] drawn from the standard normal distribution, one of 65,536 values from -4.3 to 4.3.

    Random bits are what noise costs. `jax.random.normal` takes 32 for each number; 16 are taken here, which is 3 times
    as fast.
    """
    count = math.prod(shape)
    words = jax.random.bits(key, ((count + 1) // 2,), jnp.uint32)
    numbers = jnp.concatenate([words >> 16, words & 0xFFFF])[:count].reshape(shape)
    return jnp.sqrt(2) * jax.lax.erf_inv((numbers.astype(jnp.float32) + 0.5) / 2**15 - 1)


def to_levels(image: jax.Array) -> jax.Array:
    """Return the gray levels 0..255, float32, that an image's values round to."""
    return jnp.round(to_float32(image) * 255)


def from_levels(levels: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Return the image in [0, 1] of gray levels 0..255."""
    return to_unit_range(levels / 255, dtype)


def to_gray(image: jax.Array) -> jax.Array:
    """Return the luma of an image [..., 3] as [..., 1], by Rec. 601."""
    # Three planes rather than a sum over the last axis, which is a loop of its own on the CPU: 15 times as slow.
    return sum(weight * image[..., channel, None] for channel, weight in enumerate(_LUMA))
