"""Operations that hide parts of an image: boxes and grids, filled with something neutral.

The option `fill` says what fills them. `mean`, the default, is the mean of each channel. `noise` is Gaussian, with the
mean and standard deviation of each channel. The papers use `black`. Black is not neutral on a smear, because it
looks like a nucleus.
"""

import jax
import jax.numpy as jnp

from bloodcell_jax.augment.declaration import operation
from bloodcell_jax.augment.options import Magnitude, Number, Word
from bloodcell_jax.augment.pixels import (
    Scalar,
    Strength,
    draw,
    draw_amount,
    draw_normal,
    draw_setting,
    size_of,
    to_float32,
    to_unit_range,
)
from bloodcell_jax.errors import UsageError

FILLS = ("mean", "noise", "black")


@operation(cheap=True, area=Number(0, 1, drawn=True), log_aspect=Magnitude(3), fill=Word(FILLS))
def random_erasing(
    key: jax.Array,
    image: jax.Array,
    *,
    area: Strength = (0.02, 0.33),
    log_aspect: Strength = 1.2,
    fill: str = "mean",
) -> jax.Array:
    """Hide a box anywhere in an image.

    Zhong et al. 2017 (arXiv:1708.04896), without the retries: a box that would be higher or wider than the image is cut
    to fit.

    Args:
      key: random key of this image.
      image: [h, w, c].
      area: the box's area as a part of the image's, drawn uniformly from [0, area) or from the range (low, high).
      log_aspect: logarithm of the box's width over height, drawn from [-log_aspect, log_aspect) or from (low, high).
        1.2 means up to 3.3 to 1.
      fill: `mean`, `noise` or `black`.

    Raises:
      UsageError: the fill is none of these.
    """
    area_key, aspect_key, place_key, fill_key = jax.random.split(key, 4)
    shape = jnp.array(size_of(image))
    side = jnp.sqrt(draw_amount(area_key, area) * shape[0] * shape[1])
    stretch = jnp.exp(draw(aspect_key, log_aspect) / 2)
    box = jnp.minimum(jnp.round(jnp.stack([side / stretch, side * stretch])), shape)
    corner = jnp.floor(jax.random.uniform(place_key, (2,)) * (shape - box + 1))
    return _hide(fill_key, image, _box(size_of(image), corner, box), fill)


@operation(cheap=True, size=Number(0, 2, drawn=True), fill=Word(FILLS))
def cutout(key: jax.Array, image: jax.Array, *, size: Strength = 0.4, fill: str = "mean") -> jax.Array:
    """Hide a square around any pixel of an image. Parts of the square may lie outside.

    DeVries & Taylor 2017 (arXiv:1708.04552).

    Args:
      key: random key of this image.
      image: [h, w, c].
      size: side of the square as a part of the image's shorter side, or the range (low, high) to draw it from.
      fill: `mean`, `noise` or `black`.

    Raises:
      UsageError: the fill is none of these.
    """
    size_key, place_key, fill_key = jax.random.split(key, 3)
    shape = jnp.array(size_of(image))
    side = jnp.round(draw_setting(size_key, size) * min(size_of(image)))
    center = jnp.floor(jax.random.uniform(place_key, (2,)) * shape)
    corner = center - jnp.floor(side / 2)
    return _hide(fill_key, image, _box(size_of(image), corner, jnp.stack([side, side])), fill)


@operation(
    cheap=True,
    unit=Number(0.05, 2, drawn=True),
    ratio=Number(0, 1, drawn=True),
    degrees=Magnitude(180),
    fill=Word(FILLS),
)
def grid_mask(
    key: jax.Array,
    image: jax.Array,
    *,
    unit: Strength = (0.3, 0.5),
    ratio: Strength = 0.5,
    degrees: Strength = 45.0,
    fill: str = "mean",
) -> jax.Array:
    """Hide the squares of a turned grid, about `ratio^2` of an image.

    Chen et al. 2020 (arXiv:2001.04086), with KerasCV's ranges.

    Args:
      key: random key of this image.
      image: [h, w, c].
      unit: distance between squares as a part of the image's shorter side, or the range (low, high) to draw it from.
      ratio: a square's side as a part of the unit, drawn uniformly from [0, ratio) or from (low, high), up to 1.
      degrees: angle of the grid, drawn from [-degrees, degrees) or from (low, high). 45 covers all directions.
      fill: `mean`, `noise` or `black`.

    Raises:
      UsageError: the fill is none of these.
    """
    unit_key, ratio_key, angle_key, phase_key, fill_key = jax.random.split(key, 5)
    hidden = grid_squares(
        size_of(image),
        unit=draw_setting(unit_key, unit),
        ratio=draw_amount(ratio_key, ratio),
        degrees=draw(angle_key, degrees),
        phase=jax.random.uniform(phase_key, (2,)),
    )
    return _hide(fill_key, image, hidden, fill)


def grid_squares(
    shape: tuple[int, int],
    *,
    unit: Scalar,
    ratio: Scalar,
    degrees: Scalar,
    phase: jax.Array,
) -> jax.Array:
    """Return which pixels [h, w] lie in the squares of a grid that is turned about the image's center.

    The function turns the pixels back instead of the grid. So it needs no canvas, no gather and no rounding.

    Args:
      shape: (h, w).
      unit: distance between squares as a part of the shorter side.
      ratio: a square's side as a part of the unit. 0 hides nothing and 1 hides everything.
      degrees: angle of the grid, counterclockwise.
      phase: [2], place of the image's center inside its unit along x and y, 0 to 1. The square lies at 0 to `ratio`.
    """
    height, width = shape
    y, x = jnp.arange(height)[:, None] - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2
    angle = jnp.deg2rad(degrees)
    # Counterclockwise for the viewer. y points down.
    along_x, along_y = jnp.cos(angle) * x - jnp.sin(angle) * y, jnp.sin(angle) * x + jnp.cos(angle) * y
    pixels_per_unit = unit * min(shape)

    def inside(along: jax.Array, phase: jax.Array) -> jax.Array:
        units = along / pixels_per_unit + phase
        return units - jnp.floor(units) < ratio

    return inside(along_x, phase[0]) & inside(along_y, phase[1])


def _box(shape: tuple[int, int], corner: jax.Array, size: jax.Array) -> jax.Array:
    """Return which pixels [h, w] lie in the box of `size` (height, width) whose upper left pixel is `corner`."""
    rows, columns = jnp.arange(shape[0])[:, None], jnp.arange(shape[1])
    (top, left), (bottom, right) = corner, corner + size
    return (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)


def _hide(key: jax.Array, image: jax.Array, hidden: jax.Array, fill: str) -> jax.Array:
    """Return an image [h, w, c] with its `hidden` pixels [h, w] replaced by a fill.

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
        raise UsageError(f"fill={fill} must be one of {', '.join(FILLS)}")
    return to_unit_range(jnp.where(hidden[..., None], value, pixels), image.dtype)
