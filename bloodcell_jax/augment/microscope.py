"""Operations on differences between laboratories and microscopes: stain, illumination and white balance."""

import jax
import jax.numpy as jnp
import numpy as np

from bloodcell_jax.augment.declaration import operation
from bloodcell_jax.augment.options import Magnitude, Number
from bloodcell_jax.augment.pixels import (
    Scalar,
    Strength,
    draw,
    draw_amount,
    size_of,
    to_float32,
    to_gray,
    to_unit_range,
)

# The optical density of dyes in red, green and blue. Blood smears (May-Grünwald-Giemsa, Wright) contain methylene blue
# and eosin, which Landini measured for his color deconvolution. The third row is orthogonal to both. Each has length 1.
_DYES = np.array([[0.834750233, 0.513556283, 0.196330403], [0.092789, 0.954111, 0.283111]])
_DYES = np.vstack([_DYES, np.cross(*_DYES)])
_DYES /= np.linalg.norm(_DYES, axis=1, keepdims=True)
_UNMIX = np.linalg.inv(_DYES)

# Darker values count as this one, whose optical density is 6.
_DARKEST = 1e-6


@operation(cheap=True, scale=Magnitude(1), shift=Magnitude(1))
def stain(key: jax.Array, image: jax.Array, *, scale: Strength = 0.2, shift: Strength = 0.02) -> jax.Array:
    """Change the amounts of methylene blue and eosin in an image of a stained smear.

    Ruifrok & Johnston 2001, "Quantification of histochemical staining by color deconvolution": the optical density
    -log10(image) is the sum of the dyes' densities times their amounts. Tellez et al. 2018 (arXiv:1808.05896) draw a
    factor and a summand for the amount of each dye.

    Args:
      key: random key of this image.
      image: [h, w, 3].
      scale: strength s. The amount of a dye is multiplied by 1 + s.
      shift: strength, the optical density of a dye that is added to all pixels.
    """
    scale_key, shift_key = jax.random.split(key)
    factors, summands = 1 + draw(scale_key, scale, (3,)), draw(shift_key, shift, (3,))
    return restain(image, factors, summands)


def restain(image: jax.Array, factors: jax.Array, summands: jax.Array) -> jax.Array:
    """Return an image [h, w, 3] after its amounts of the dyes become `factors * amounts + summands`.

    Args:
      image: [h, w, 3].
      factors, summands: [3], for methylene blue, eosin and the rest.
    """
    density = -jnp.log10(jnp.maximum(to_float32(image), _DARKEST))
    # Unmixing, scaling and mixing again are one matrix. The product is written out, since a matrix unit does not help
    # with three channels.
    matrix = (_UNMIX[:, :, None] * factors[None, :, None] * _DYES[None]).sum(1)
    added = (summands[:, None] * _DYES).sum(0)
    density = sum(density[..., channel, None] * matrix[channel] for channel in range(3)) + added
    return to_unit_range(jnp.exp(-np.log(10) * density), image.dtype)


@operation(cheap=True, gradient=Number(0, 1, drawn=True), vignetting=Number(0, 1, drawn=True))
def illumination(
    key: jax.Array, image: jax.Array, *, gradient: Strength = 0.2, vignetting: Strength = 0.2
) -> jax.Array:
    """Light an image unevenly: more light from one side, and less light far from the lens's axis.

    The mean of the light is 1. So only `brightness` changes how bright an image is.

    Args:
      key: random key of this image.
      image: [h, w, c].
      gradient: rise of the light from the center to the border, as a part of its mean, in any direction. It is drawn
        uniformly from [0, gradient) or from the range (low, high), up to 1.
      vignetting: part of the light that is lost at half a diagonal from the axis. The loss grows with the square of the
        distance. It is drawn as `gradient` is. The axis goes through the image's middle half.
    """
    gradient_key, direction_key, vignetting_key, axis_key = jax.random.split(key, 4)
    field = light(
        size_of(image),
        gradient=draw_amount(gradient_key, gradient),
        direction=jax.random.uniform(direction_key, maxval=2 * jnp.pi),
        vignetting=draw_amount(vignetting_key, vignetting),
        axis=jax.random.uniform(axis_key, (2,), minval=-0.5, maxval=0.5),
    )
    return to_unit_range(to_float32(image) * field[..., None], image.dtype)


def light(
    shape: tuple[int, int],
    *,
    gradient: Scalar,
    direction: Scalar,
    vignetting: Scalar,
    axis: jax.Array,
) -> jax.Array:
    """Return the light [h, w] on an image, with mean 1.

    Args:
      shape: (h, w).
      gradient: rise from the center to the border as a part of the light at the center.
      direction: direction of the rise in radians, counterclockwise from the right.
      vignetting: part of the light that is lost at half a diagonal from the axis.
      axis: [2], place of the lens's axis in the image, x and y from -1 to 1.
    """
    height, width = shape
    y, x = jnp.linspace(-1, 1, height)[:, None], jnp.linspace(-1, 1, width)
    rise = gradient * (jnp.cos(direction) * x - jnp.sin(direction) * y)
    distance_squared = (jnp.square(x - axis[0]) + jnp.square(y - axis[1])) / 2
    field = jnp.maximum((1 + rise) * (1 - vignetting * distance_squared), 0)
    return field / field.mean()


@operation(cheap=True, delta=Magnitude(1))
def white_balance(key: jax.Array, image: jax.Array, *, delta: Strength = 0.1) -> jax.Array:
    """Multiply each channel of an image by a gain of its own. The mean luminance stays.

    Args:
      key: random key of this image.
      image: [h, w, 3].
      delta: strength, the logarithm of a gain before all gains are scaled to keep the mean luminance.
    """
    gains = jnp.exp(draw(key, delta, (3,)))
    pixels = to_float32(image)
    means = pixels.mean((0, 1))
    # A black image has no luminance to keep.
    kept = to_gray(means) / jnp.maximum(to_gray(means * gains), _DARKEST)
    return to_unit_range(pixels * gains * kept, image.dtype)
