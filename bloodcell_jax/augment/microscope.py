"""What differs between one microscope, stain or laboratory and the next: stain, illumination and white balance."""

import jax
import jax.numpy as jnp
import numpy as np

from bloodcell_jax.augment.pixels import Strength, draw, draw_amount, to_float32, to_gray, to_unit_range

# Optical density in red, green and blue of the dyes of blood smears (May-Grünwald-Giemsa, Wright): methylene blue and
# eosin, as measured by Landini for his color deconvolution, and what is orthogonal to both. Each has length 1.
_DYES = np.array([[0.834750233, 0.513556283, 0.196330403], [0.092789, 0.954111, 0.283111]])
_DYES = np.vstack([_DYES, np.cross(*_DYES)])
_DYES /= np.linalg.norm(_DYES, axis=1, keepdims=True)
_UNMIX = np.linalg.inv(_DYES)

# The darkest value that has an optical density, 6.
_DARKEST = 1e-6


def stain(key: jax.Array, image: jax.Array, *, scale: Strength = 0.2, shift: Strength = 0.02) -> jax.Array:
    """Change how much of each dye an image [h, w, 3] of a stained smear shows.

    Ruifrok & Johnston 2001, "Quantification of histochemical staining by color deconvolution": the optical density
    -log10(image) is the sum of the dyes' densities times their amounts. Tellez et al. 2018 (arXiv:1808.05896) draw a
    factor and a summand for the amount of each.

    Args:
      scale: the amount of a dye is multiplied by 1 plus it.
      shift: optical density added of a dye, everywhere.
    """
    scale_key, shift_key = jax.random.split(key)
    factors, summands = 1 + draw(scale_key, scale, (3,)), draw(shift_key, shift, (3,))
    return restain(image, factors, summands)


def restain(image: jax.Array, factors: jax.Array, summands: jax.Array) -> jax.Array:
    """Return an image [h, w, 3] whose amounts of methylene blue, eosin and rest are `factors * amounts + summands`."""
    density = -jnp.log10(jnp.maximum(to_float32(image), _DARKEST))
    # Unmixing, scaling and mixing again are one matrix, written out: three channels are no work for a matrix unit.
    matrix = (_UNMIX[:, :, None] * factors[None, :, None] * _DYES[None]).sum(1)
    added = (summands[:, None] * _DYES).sum(0)
    density = sum(density[..., channel, None] * matrix[channel] for channel in range(3)) + added
    return to_unit_range(jnp.exp(-np.log(10) * density), image.dtype)


def illumination(
    key: jax.Array, image: jax.Array, *, gradient: Strength = 0.2, vignetting: Strength = 0.2
) -> jax.Array:
    """Light an image [h, w, c] unevenly: more from one side, and less far from the lens's axis.

    The field has mean 1, so that `brightness` alone changes how bright an image is.

    Args:
      gradient: the light rises by this part of its mean from the center to the border, in any direction; drawn
        uniformly from [0, gradient) or from the range (low, high), up to 1.
      vignetting: part of the light that is lost at the distance of half a diagonal from the axis, growing with the
        square of the distance; drawn likewise. The axis goes through the image's middle half.
    """
    gradient_key, direction_key, vignetting_key, axis_key = jax.random.split(key, 4)
    field = light(
        image.shape[:2],
        gradient=draw_amount(gradient_key, gradient),
        direction=jax.random.uniform(direction_key, maxval=2 * jnp.pi),
        vignetting=draw_amount(vignetting_key, vignetting),
        axis=jax.random.uniform(axis_key, (2,), minval=-0.5, maxval=0.5),
    )
    return to_unit_range(to_float32(image) * field[..., None], image.dtype)


def light(
    shape: tuple[int, int],
    *,
    gradient: jax.Array | float,
    direction: jax.Array | float,
    vignetting: jax.Array | float,
    axis: jax.Array,
) -> jax.Array:
    """Return a field of light [h, w] with mean 1.

    Args:
      shape: (h, w).
      gradient: rise from the center to the border as a part of the light at the center.
      direction: of the rise, in radians, counterclockwise from the right.
      vignetting: part lost at half a diagonal from the axis.
      axis: [2], where the lens's axis meets the image, x and y from -1 to 1.
    """
    height, width = shape
    y, x = jnp.linspace(-1, 1, height)[:, None], jnp.linspace(-1, 1, width)
    rise = gradient * (jnp.cos(direction) * x - jnp.sin(direction) * y)
    distance_squared = (jnp.square(x - axis[0]) + jnp.square(y - axis[1])) / 2
    field = jnp.maximum((1 + rise) * (1 - vignetting * distance_squared), 0)
    return field / field.mean()


def white_balance(key: jax.Array, image: jax.Array, *, delta: Strength = 0.1) -> jax.Array:
    """Multiply each channel of an image [h, w, 3] by a gain of its own; the mean luminance stays.

    Args:
      delta: logarithm of a gain before all are scaled to keep the mean luminance.
    """
    gains = jnp.exp(draw(key, delta, (3,)))
    pixels = to_float32(image)
    means = pixels.mean((0, 1))
    # A black image has no luminance to keep.
    kept = to_gray(means) / jnp.maximum(to_gray(means * gains), _DARKEST)
    return to_unit_range(pixels * gains * kept, image.dtype)
