"""How images become a network's input."""

import jax
import jax.numpy as jnp


def to_unit(images: jax.Array) -> jax.Array:
    """Return uint8 images as float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255


def resize(images: jax.Array, size: int) -> jax.Array:
    """Return images [n, h, w, 3] in [0, 1] as [n, size, size, 3], on the 256 levels of a byte.

    Bicubic (R. Keys 1981, a = -0.5) with antialiasing, as Pillow makes images smaller.
    """
    if images.shape[1:3] == (size, size):
        return images
    resized = jax.image.resize(images, (len(images), size, size, 3), "cubic", antialias=True)
    return jnp.round(jnp.clip(resized, 0, 1) * 255) / 255


def normalize(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Return images [n, h, w, 3] in [0, 1] as a network takes them: minus mean, over std, per channel."""
    return (images - jnp.asarray(mean)) / jnp.asarray(std)
