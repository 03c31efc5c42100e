"""The pixels that operations take and give: floats in [0, 1], of any float type."""

import jax
import jax.numpy as jnp

from bloodcell_jax.errors import UsageError


def to_float32(image: jax.Array) -> jax.Array:
    """Return an image in the type operations compute in.

    Raises:
      UsageError: the image is not of floats.
    """
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise UsageError(f"an image of {image.dtype} is not float in [0, 1]; divide pictures of uint8 by 255 first")
    return image.astype(jnp.float32)


def to_unit_range(image: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Return a computed image clipped to [0, 1], in the type it came in."""
    return jnp.clip(image, 0, 1).astype(dtype)
