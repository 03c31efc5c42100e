"""Operations that move pixels: symmetries of the square, and affine maps with one gather.

dm-pix's `rotate` and `affine_transform` interpolate in three dimensions. This costs ten times as much, takes 24 times
the memory of the batch, and fills with dark borders. So the affine map is our own: one matrix, four taps.
"""

import dm_pix as pix
import jax
import jax.numpy as jnp

from bloodcell_jax.augment.declaration import operation
from bloodcell_jax.augment.options import Magnitude, Number, Word
from bloodcell_jax.augment.pixels import Scalar, Strength, draw, size_of, to_float32, to_unit_range
from bloodcell_jax.errors import UsageError

FILLS = ("reflect", "edge", "constant")

# Flips and quarter turns of a square.
SYMMETRIES = 8


@operation(cheap=True)
def d4(key: jax.Array, image: jax.Array) -> jax.Array:
    """Flip and rotate a square image by one of the 8 symmetries of the square, each equally likely.

    A cell on a smear has no orientation, so all 8 symmetries keep its label.

    Args:
      key: random key of this image.
      image: [h, w, c] with h = w.

    Raises:
      UsageError: the image is not square.
    """
    height, width = size_of(image)
    if height != width:
        raise UsageError(f"d4: an image of {height}x{width} pixels is not square; resize it or leave d4 out")
    return _symmetry(image, *jax.random.bernoulli(key, shape=(3,)))


def symmetry(image: jax.Array, number: Scalar) -> jax.Array:
    """Return a square image [h, w, c] in orientation `number` of its 8, which may be traced; 0 is the image itself."""
    number = jnp.asarray(number)
    return _symmetry(image, number & 4 != 0, number & 2 != 0, number & 1 != 0)


def _symmetry(image: jax.Array, transposed: jax.Array, mirrored: jax.Array, upside_down: jax.Array) -> jax.Array:
    # Three bits are the 8 symmetries. dm_pix.rot90 refuses a traced k, and a choice among 8 images computes all 8.
    image = jnp.where(transposed, image.swapaxes(0, 1), image)
    image = jnp.where(mirrored, pix.flip_left_right(image), image)
    # This is a gather of rows and not a third select. XLA computes a gather once on the CPU, but repeats selects inside
    # every later operation. The default policy on 256 images of 96 px takes 50 ms instead of 125.
    rows = jnp.arange(len(image))
    return image[jnp.where(upside_down, rows[::-1], rows)]


@operation(degrees=Magnitude(180), shear=Magnitude(1), translate=Magnitude(1), zoom=Magnitude(0.9), fill=Word(FILLS))
def affine(
    key: jax.Array,
    image: jax.Array,
    *,
    degrees: Strength = 180.0,
    shear: Strength = 0.0,
    translate: Strength = 0.0,
    zoom: Strength = 0.0,
    fill: str = "reflect",
) -> jax.Array:
    """Rotate, shear, translate and zoom an image about its center, in one bilinear gather.

    Each strength is the largest change in both directions, or the range (low, high) to draw from.

    Args:
      key: random key of this image.
      image: [h, w, c].
      degrees: angle of the rotation.
      shear: tangent of the angle of the shear, drawn for each axis.
      translate: distance as a part of the height and width, drawn for each axis.
      zoom: the image is enlarged by the factor 1 + zoom, the same for both axes. A cell's size tells its class, so keep
        zoom within 0.1.
      fill: content outside the image: `reflect` (the image mirrored at its border), `edge` (the border repeated) or
        `constant` (gray).
    """
    drawn_degrees, drawn_zoom = draw(jax.random.fold_in(key, 0), degrees), draw(jax.random.fold_in(key, 1), zoom)
    shear_x, shear_y = (draw(jax.random.fold_in(key, 2 + axis), shear) for axis in range(2))
    translate_x, translate_y = (draw(jax.random.fold_in(key, 4 + axis), translate) for axis in range(2))
    matrix = affine_matrix(
        size_of(image),
        degrees=drawn_degrees,
        shear_x=shear_x,
        shear_y=shear_y,
        translate_x=translate_x,
        translate_y=translate_y,
        zoom=1 + drawn_zoom,
    )
    return warp(image, matrix, fill=fill)


@operation(area=Number(0.01, 1, drawn=True), log_aspect=Magnitude(2))
def random_resized_crop(
    key: jax.Array, image: jax.Array, *, area: Strength = (0.64, 1.0), log_aspect: Strength = 0.1
) -> jax.Array:
    """Cut a box out of an image and stretch it to the size of the image.

    Szegedy et al. 2015 (arXiv:1409.4842, section 6), without the retries: the sides of a box are cut to the image's.
    The interpolation is bilinear.

    Args:
      key: random key of this image.
      image: [h, w, c].
      area: the box's area as a part of the image's, drawn from [area, 1) or from the range (low, high).
      log_aspect: logarithm of the box's width over height, relative to the image's, drawn from
        [-log_aspect, log_aspect) or from (low, high).
    """
    height, width = size_of(image)
    area = area if isinstance(area, tuple) else (area, 1.0)
    part, stretch = draw(jax.random.fold_in(key, 0), area), jnp.exp(draw(jax.random.fold_in(key, 1), log_aspect) / 2)
    scale_x, scale_y = jnp.minimum(jnp.sqrt(part) * stretch, 1), jnp.minimum(jnp.sqrt(part) / stretch, 1)
    left, top = jax.random.uniform(jax.random.fold_in(key, 2), (2,)) * (1 - jnp.stack([scale_x, scale_y]))
    # In terms of pixel centers, output pixel i lies at (i + 1/2) * scale + offset - 1/2 of the input.
    matrix = jnp.array(
        [
            [scale_x, 0, left * width + scale_x / 2 - 0.5],
            [0, scale_y, top * height + scale_y / 2 - 0.5],
        ]
    )
    return warp(image, matrix, fill="edge")


def affine_matrix(
    shape: tuple[int, int],
    *,
    degrees: Scalar = 0.0,
    shear_x: Scalar = 0.0,
    shear_y: Scalar = 0.0,
    translate_x: Scalar = 0.0,
    translate_y: Scalar = 0.0,
    zoom: Scalar = 1.0,
) -> jax.Array:
    """Return the matrix [2, 3] that maps an output pixel (x, y, 1) to its place in the input.

    Args:
      shape: (h, w) of the image. Its center is the center of the rotation, the shear and the zoom.
      degrees: angle, counterclockwise.
      shear_x, shear_y: tangents. `shear_x` moves rows along x.
      translate_x, translate_y: distances to the right and down, as parts of width and height.
      zoom: factor. Above 1 enlarges.
    """
    height, width = shape
    angle = jnp.deg2rad(degrees)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # This is rotation times shear, written out so that no sum has two products (see `warp`).
    xx, xy = (cos - sin * shear_y) / zoom, (cos * shear_x - sin) / zoom
    yx, yy = (sin + cos * shear_y) / zoom, (sin * shear_x + cos) / zoom
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    moved_x, moved_y = center_x + translate_x * width, center_y + translate_y * height
    offset_x, offset_y = center_x - xx * moved_x - xy * moved_y, center_y - yx * moved_x - yy * moved_y
    return jnp.stack([jnp.stack([xx, xy, offset_x]), jnp.stack([yx, yy, offset_y])])


def warp(image: jax.Array, matrix: jax.Array, *, fill: str = "reflect") -> jax.Array:
    """Return the image whose pixel (x, y) is the input at `matrix @ (x, y, 1)`, with bilinear interpolation.

    No sum here has two products. The compiler would fuse one of the two into the sum, and the batch size would decide
    which one. Then images would differ in the last bit between numbers of devices.

    Args:
      image: [h, w, c].
      matrix: [2, 3], may be traced.
      fill: content outside the image: `reflect`, `edge` or `constant` (gray, 0.5).
    """
    y, x = jnp.meshgrid(*map(jnp.arange, size_of(image)), indexing="ij")
    source_x, source_y = (row[2] + row[1] * y + row[0] * x for row in matrix)
    return sample(image, source_y, source_x, fill=fill)


def sample(image: jax.Array, y: jax.Array, x: jax.Array, *, fill: str = "reflect") -> jax.Array:
    """Return the values [h, w, c] of an image at places y, x [h, w] between its pixels, with bilinear interpolation.

    Args:
      image: [h, w, c].
      y, x: rows and columns.
      fill: as in `warp`.
    """
    height, width, channels = image.shape
    left, top = jnp.floor(x), jnp.floor(y)
    right_weight, bottom_weight = (x - left)[..., None], (y - top)[..., None]
    pixels = to_float32(image).reshape(-1, channels)

    def tap(dx: int, dy: int) -> jax.Array:
        column, row = left.astype(jnp.int32) + dx, top.astype(jnp.int32) + dy
        index = inside(row, height, fill) * width + inside(column, width, fill)
        values = pixels.at[index].get(mode="promise_in_bounds")
        if fill != "constant":
            return values
        outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
        return jnp.where(outside[..., None], 0.5, values)

    def between(start: jax.Array, end: jax.Array, weight: jax.Array) -> jax.Array:
        return start + weight * (end - start)

    upper, lower = (between(tap(0, dy), tap(1, dy), right_weight) for dy in range(2))
    return to_unit_range(between(upper, lower, bottom_weight), image.dtype)


def inside(index: jax.Array, size: int, fill: str) -> jax.Array:
    """Return the places, 0 to below `size`, that the indices stand for, since some lie outside."""
    if fill == "reflect":
        index = index % (2 * size)
        return jnp.minimum(index, 2 * size - 1 - index)
    return jnp.clip(index, 0, size - 1)
