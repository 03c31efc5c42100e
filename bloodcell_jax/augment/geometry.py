"""Where the pixels go: operations that move them and keep their values."""

import dm_pix as pix
import jax
import jax.numpy as jnp

from bloodcell_jax.errors import UsageError


def d4(key: jax.Array, image: jax.Array) -> jax.Array:
    """Flip and rotate a square image by one of the 8 symmetries of the square, each equally likely.

    A cell on a smear has no orientation, so all 8 keep its label.

    Args:
      key: decides the symmetry.
      image: [h, w, c] with h = w.

    Raises:
      UsageError: the image is not square.
    """
    height, width, _ = image.shape
    if height != width:
        raise UsageError(f"d4: an image of {height}x{width} pixels is not square; resize it or leave d4 out")
    # Three bits are the 8 symmetries. dm_pix.rot90 refuses a traced k, and choosing among 8 pictures makes them all.
    transposed, mirrored, upside_down = jax.random.bernoulli(key, shape=(3,))
    image = jnp.where(transposed, image.swapaxes(0, 1), image)
    image = jnp.where(mirrored, pix.flip_left_right(image), image)
    # A gather of rows, not a third select: the CPU compiler computes a gather once but repeats selects inside every
    # later operation (the default policy on 256 pictures of 96 px: 50 ms against 125).
    rows = jnp.arange(height)
    return image[jnp.where(upside_down, rows[::-1], rows)]
