"""What hides parts of an image: boxes and grids, filled with something neutral.

What fills them is a word: `mean` (of each channel; the default), `noise` (Gaussian, with each channel's mean and
standard deviation) or `black`, as the papers have it, though black is not neutral on a smear: it looks like a nucleus.
"""

import jax
import jax.numpy as jnp

from bloodcell_jax.augment.pixels import (
    Strength,
    draw,
    draw_amount,
    draw_normal,
    draw_setting,
    to_float32,
    to_unit_range,
)
from bloodcell_jax.errors import UsageError

FILLS = ("mean", "noise", "black")


def random_erasing(
    key: jax.Array,
    image: jax.Array,
    *,
    area: Strength = (0.02, 0.33),
    log_aspect: Strength = 1.2,
    fill: str = "mean",
) -> jax.Array:
    """Hide a box anywhere in an image [h, w, c].

    Zhong et al. 2017 (arXiv:1708.04896), without its retries: a box that would be higher or wider than the image is
    cut to fit.

    Args:
      area: of the box as a part of the image's, drawn uniformly from [0, area) or from the range (low, high).
      log_aspect: logarithm of width over height, drawn from [-log_aspect, log_aspect) or (low, high); 1.2 is 3.3 to 1.
      fill: `mean`, `noise` or `black`.
    """
    area_key, aspect_key, place_key, fill_key = jax.random.split(key, 4)
    shape = jnp.array(image.shape[:2])
    side = jnp.sqrt(draw_amount(area_key, area) * shape[0] * shape[1])
    stretch = jnp.exp(draw(aspect_key, log_aspect) / 2)
    box = jnp.minimum(jnp.round(jnp.stack([side / stretch, side * stretch])), shape)
    corner = jnp.floor(jax.random.uniform(place_key, (2,)) * (shape - box + 1))
    return _hide(fill_key, image, _box(image.shape[:2], corner, box), fill)


def cutout(key: jax.Array, image: jax.Array, *, size: Strength = 0.4, fill: str = "mean") -> jax.Array:
    """Hide a square whose center is any pixel of an image [h, w, c], so that parts of it may lie outside.

    DeVries & Taylor 2017 (arXiv:1708.04552).

    Args:
      size: side of the square as a part of the image's shorter side, or the range (low, high) to draw it from.
      fill: `mean`, `noise` or `black`.
    """
    size_key, place_key, fill_key = jax.random.split(key, 3)
    shape = jnp.array(image.shape[:2])
    side = jnp.round(draw_setting(size_key, size) * min(image.shape[:2]))
    center = jnp.floor(jax.random.uniform(place_key, (2,)) * shape)
    corner = center - jnp.floor(side / 2)
    return _hide(fill_key, image, _box(image.shape[:2], corner, jnp.stack([side, side])), fill)


def grid_mask(
    key: jax.Array,
    image: jax.Array,
    *,
    unit: Strength = (0.3, 0.5),
    ratio: Strength = 0.5,
    degrees: Strength = 45.0,
    fill: str = "mean",
) -> jax.Array:
    """Hide the squares of a turned grid anywhere under an image [h, w, c]; they are about `ratio^2` of it.

    Chen et al. 2020 (arXiv:2001.04086), with KerasCV's ranges.

    Args:
      unit: distance of the squares as a part of the image's shorter side, or the range (low, high) to draw it from.
      ratio: a square's side as a part of the unit, drawn uniformly from [0, ratio) or from (low, high), up to 1.
      degrees: the grid is turned by, drawn from [-degrees, degrees) or (low, high); 45 is any direction.
      fill: `mean`, `noise` or `black`.
    """
    unit_key, ratio_key, angle_key, phase_key, fill_key = jax.random.split(key, 5)
    hidden = grid_squares(
        image.shape[:2],
        unit=draw_setting(unit_key, unit),
        ratio=draw_amount(ratio_key, ratio),
        degrees=draw(angle_key, degrees),
        phase=jax.random.uniform(phase_key, (2,)),
    )
    return _hide(fill_key, image, hidden, fill)


def grid_squares(
    shape: tuple[int, int],
    *,
    unit: jax.Array | float,
    ratio: jax.Array | float,
    degrees: jax.Array | float,
    phase: jax.Array,
) -> jax.Array:
    """Return which pixels [h, w] lie in the squares of a grid that is turned about the image's center.

    The pixels are turned back instead of the grid, and then lie in a square or not: no canvas, gather or rounding.

    Args:
      shape: (h, w).
      unit: distance of the squares as a part of the shorter side.
      ratio: a square's side as a part of the unit, 0 for none, 1 for all.
      degrees: counterclockwise.
      phase: [2], how far along x and y the center lies inside its unit, from 0 to 1; the square lies at 0 to `ratio`.
    """
    height, width = shape
    y, x = jnp.arange(height)[:, None] - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2
    angle = jnp.deg2rad(degrees)
    # Counterclockwise as seen, with y pointing down.
    along_x, along_y = jnp.cos(angle) * x - jnp.sin(angle) * y, jnp.sin(angle) * x + jnp.cos(angle) * y
    pixels_per_unit = unit * min(shape)

    def inside(along: jax.Array, phase: jax.Array) -> jax.Array:
        units = along / pixels_per_unit + phase
        return units - jnp.floor(units) < ratio

    return inside(along_x, phase[0]) & inside(along_y, phase[1])


def _box(shape: tuple[int, int], corner: jax.Array, size: jax.Array) -> jax.Array:
    """Return which pixels of [h, w] lie in the box of `size` (height, width) whose upper left pixel is `corner`."""
    rows, columns = jnp.arange(shape[0])[:, None], jnp.arange(shape[1])
    (top, left), (bottom, right) = corner, corner + size
    return (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)


def _hide(key: jax.Array, image: jax.Array, hidden: jax.Array, fill: str) -> jax.Array:
    """Return an image [h, w, c] whose pixels where `hidden` [h, w] are replaced by a fill.

    Raises:
      UsageError: the fill is none of FILLS.
    """
    pixels = to_float32(image)
    if fill == "black":
        value = 0.0
    elif fill == "mean":
        value = pixels.mean((0, 1))
    elif fill == "noise":
        value = pixels.mean((0, 1)) + pixels.std((0, 1)) * draw_normal(key, image.shape)
    else:
        raise UsageError(f"fill={fill} is none of {', '.join(FILLS)}; choose one")
    return to_unit_range(jnp.where(hidden[..., None], value, pixels), image.dtype)
