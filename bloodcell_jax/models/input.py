"""How images become a network's input."""

import jax
import jax.numpy as jnp


def to_unit(images: jax.Array) -> jax.Array:
    """Return uint8 images as float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255


def normalize(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Return images [n, h, w, 3] in [0, 1] as a network takes them: minus mean, over std, per channel."""
    return (images - jnp.asarray(mean)) / jnp.asarray(std)
