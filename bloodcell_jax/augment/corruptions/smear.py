"""Corruptions by the smear itself: bubbles under the cover glass and deposits of stain."""

import jax
import jax.numpy as jnp

from bloodcell_jax.augment.pixels import Scalar, to_unit_range

# Pixels of a 224 px image, and alphas of 255, as MedMNIST-C draws bubbles.
_FEWEST_BUBBLES, _MOST_BUBBLES = 7, 12
_SMALLEST_RADIUS, _BORDER = 3 / 224, 2 / 224
_ALPHA, _BORDER_ALPHA = 100 / 255, 130 / 255

_MOST_DEPOSITS = 3
_GRAINS = 6


def bubble(key: jax.Array, image: jax.Array, radius: Scalar, count: Scalar) -> jax.Array:
    """Draw 7 to `count` whitish circles with a brighter border over a square image.

    Args:
      key: random key of this image.
      image: [h, w, 3] with h = w.
      radius: the largest, as a part of the side; the smallest is 3/224.
      count: the largest number, at most 12.
    """
    side = len(image)
    number_key, radius_key, place_key = jax.random.split(key, 3)
    drawn = jax.random.randint(number_key, (), _FEWEST_BUBBLES, jnp.asarray(count, jnp.int32) + 1)
    radii = jax.random.uniform(radius_key, (_MOST_BUBBLES,), minval=_SMALLEST_RADIUS, maxval=radius)
    y, x = (radii + jax.random.uniform(place_key, (2, _MOST_BUBBLES)) * (1 - 2 * radii)) * (side - 1)
    return cover_with_bubbles(image, radii * side, y, x, drawn)


def cover_with_bubbles(image: jax.Array, radii: jax.Array, y: jax.Array, x: jax.Array, count: Scalar) -> jax.Array:
    """Return an image [h, w, 3] under the first `count` of bubbles; a later one hides what it lies on.

    Args:
      radii, y, x: in pixels, [n].
    """
    rows, columns = jnp.arange(image.shape[0])[:, None], jnp.arange(image.shape[1])
    alpha = jnp.zeros(image.shape[:2])
    for number in range(len(radii)):
        distance = jnp.hypot(rows - y[number], columns - x[number])
        border = jnp.where(distance <= radii[number] + _BORDER * len(image), _BORDER_ALPHA, alpha)
        alpha = jnp.where(number < count, jnp.where(distance <= radii[number], _ALPHA, border), alpha)
    return to_unit_range(image + alpha[..., None] * (1 - image), image.dtype)


def stain_deposit(key: jax.Array, image: jax.Array, count: Scalar) -> jax.Array:
    """Drop 1 to `count` dark grainy marks of stain on a square image.

    MedMNIST-C multiplies with pictures of ink. Here a mark is a heap of 6 soft grains of a fiftieth to a fourteenth of
    the side, which lets through a tenth of the light in its middle.

    Args:
      key: random key of this image.
      image: [h, w, 3] with h = w.
      count: the largest number of marks, at most 3.
    """
    side = len(image)
    number_key, place_key, grain_key, radius_key = jax.random.split(key, 4)
    marks = jax.random.randint(number_key, (), 1, jnp.asarray(count, jnp.int32) + 1)
    centers = jax.random.uniform(place_key, (_MOST_DEPOSITS, 1, 2), minval=0.12, maxval=0.88)
    places = centers + 0.04 * jax.random.normal(grain_key, (_MOST_DEPOSITS, _GRAINS, 2)).clip(-2, 2)
    radii = jax.random.uniform(radius_key, (_MOST_DEPOSITS, _GRAINS), minval=1 / 50, maxval=1 / 14)
    y, x = (jnp.arange(side)[:, None] + 0.5) / side, (jnp.arange(side) + 0.5) / side
    light = jnp.ones((side, side))
    for mark in range(_MOST_DEPOSITS):
        thickness = jnp.zeros((side, side))
        for grain in range(_GRAINS):
            distance_squared = jnp.square(y - places[mark, grain, 0]) + jnp.square(x - places[mark, grain, 1])
            # Steeper than a Gaussian: a grain has an edge.
            thickness += jnp.exp(-jnp.square(distance_squared / jnp.square(radii[mark, grain])))
        light = jnp.where(mark < marks, light * jnp.maximum(jnp.exp(-2.3 * thickness), 0.1), light)
    return to_unit_range(image * light[..., None], image.dtype)
