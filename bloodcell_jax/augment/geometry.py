"""Where the pixels go: symmetries of the square, and affine maps with one gather.

dm-pix's `rotate` and `affine_transform` interpolate in three dimensions, which costs ten times as much, takes 24 times
the batch in memory and fills with dark borders, so the affine map is our own: one matrix, four taps.
"""

import dm_pix as pix
import jax
import jax.numpy as jnp

from bloodcell_jax.augment.pixels import Strength, draw, to_float32, to_unit_range
from bloodcell_jax.errors import UsageError

FILLS = ("reflect", "edge", "constant")


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
    # Three bits are the 8 symmetries. dm_pix.rot90 refuses a traced k, and choosing among 8 images makes them all.
    transposed, mirrored, upside_down = jax.random.bernoulli(key, shape=(3,))
    image = jnp.where(transposed, image.swapaxes(0, 1), image)
    image = jnp.where(mirrored, pix.flip_left_right(image), image)
    # A gather of rows, not a third select: the CPU compiler computes a gather once but repeats selects inside every
    # later operation (the default policy on 256 images of 96 px: 50 ms against 125).
    rows = jnp.arange(height)
    return image[jnp.where(upside_down, rows[::-1], rows)]


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
    """Rotate, shear, translate and zoom an image [h, w, c] about its center, all in one bilinear gather.

    Each strength is the largest change either way, or the range (low, high) to draw from.

    Args:
      degrees: of the rotation.
      shear: tangent of the angle, drawn for each axis.
      translate: as a part of the height and width, drawn for each axis.
      zoom: the factor is 1 plus it, one for both axes. A cell's size tells its class: keep it within 0.1.
      fill: what lies outside: `reflect` (the image mirrored at its border), `edge` (its border) or `constant` (gray).
    """
    shape = image.shape[:2]
    drawn_degrees, drawn_zoom = draw(jax.random.fold_in(key, 0), degrees), draw(jax.random.fold_in(key, 1), zoom)
    shear_x, shear_y = (draw(jax.random.fold_in(key, 2 + axis), shear) for axis in range(2))
    translate_x, translate_y = (draw(jax.random.fold_in(key, 4 + axis), translate) for axis in range(2))
    matrix = affine_matrix(
        shape,
        degrees=drawn_degrees,
        shear_x=shear_x,
        shear_y=shear_y,
        translate_x=translate_x,
        translate_y=translate_y,
        zoom=1 + drawn_zoom,
    )
    return warp(image, matrix, fill=fill)


def random_resized_crop(
    key: jax.Array, image: jax.Array, *, area: Strength = (0.64, 1.0), log_aspect: Strength = 0.1
) -> jax.Array:
    """Cut a box out of an image [h, w, c] and stretch it, bilinear, to the image's own size.

    Szegedy et al. 2015 (arXiv:1409.4842, 6), without retries: a box is never taller or wider than the image.

    Args:
      area: of the box as a part of the image's; a number is the smallest, up to 1.
      log_aspect: logarithm of the box's width over height, against the image's.
    """
    height, width, _ = image.shape
    area = area if isinstance(area, tuple) else (area, 1.0)
    part, stretch = draw(jax.random.fold_in(key, 0), area), jnp.exp(draw(jax.random.fold_in(key, 1), log_aspect) / 2)
    scale_x, scale_y = jnp.minimum(jnp.sqrt(part) * stretch, 1), jnp.minimum(jnp.sqrt(part) / stretch, 1)
    left, top = jax.random.uniform(jax.random.fold_in(key, 2), (2,)) * (1 - jnp.stack([scale_x, scale_y]))
    # Pixel centers: output pixel i looks at (i + 1/2) * scale + offset - 1/2.
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
    degrees: jax.Array | float = 0.0,
    shear_x: jax.Array | float = 0.0,
    shear_y: jax.Array | float = 0.0,
    translate_x: jax.Array | float = 0.0,
    translate_y: jax.Array | float = 0.0,
    zoom: jax.Array | float = 1.0,
) -> jax.Array:
    """Return the matrix [2, 3] that takes an output pixel (x, y, 1) to where it comes from in the input.

    Args:
      shape: (h, w) of the image; everything turns about its center.
      degrees: counterclockwise.
      shear_x, shear_y: tangents; `shear_x` moves rows along x.
      translate_x, translate_y: to the right and down, as parts of width and height.
      zoom: above 1 enlarges.
    """
    height, width = shape
    angle = jnp.deg2rad(degrees)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # Rotation times shear, written out with one product a sum: see `warp`.
    xx, xy = (cos - sin * shear_y) / zoom, (cos * shear_x - sin) / zoom
    yx, yy = (sin + cos * shear_y) / zoom, (sin * shear_x + cos) / zoom
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    moved_x, moved_y = center_x + translate_x * width, center_y + translate_y * height
    offset_x, offset_y = center_x - xx * moved_x - xy * moved_y, center_y - yx * moved_x - yy * moved_y
    return jnp.stack([jnp.stack([xx, xy, offset_x]), jnp.stack([yx, yy, offset_y])])


def warp(image: jax.Array, matrix: jax.Array, *, fill: str = "reflect") -> jax.Array:
    """Return the image [h, w, c] whose pixel (x, y) is the input at `matrix @ (x, y, 1)`, bilinear.

    No sum here has two products: the compiler may fuse a product into a sum, and of two it takes either, which differs
    between batch sizes, so that images would differ in the last bit between numbers of devices.

    Args:
      matrix: [2, 3], may be traced.
      fill: what lies outside: `reflect`, `edge` or `constant` (gray, 0.5).
    """
    height, width, channels = image.shape
    y, x = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    source_x, source_y = (row[2] + row[1] * y + row[0] * x for row in matrix)
    left, top = jnp.floor(source_x), jnp.floor(source_y)
    right_weight, bottom_weight = (source_x - left)[..., None], (source_y - top)[..., None]
    pixels = to_float32(image).reshape(-1, channels)

    def tap(dx: int, dy: int) -> jax.Array:
        column, row = left.astype(jnp.int32) + dx, top.astype(jnp.int32) + dy
        index = _inside(row, height, fill) * width + _inside(column, width, fill)
        values = pixels.at[index].get(mode="promise_in_bounds")
        if fill != "constant":
            return values
        outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
        return jnp.where(outside[..., None], 0.5, values)

    def between(start: jax.Array, end: jax.Array, weight: jax.Array) -> jax.Array:
        return start + weight * (end - start)

    upper, lower = (between(tap(0, dy), tap(1, dy), right_weight) for dy in range(2))
    return to_unit_range(between(upper, lower, bottom_weight), image.dtype)


def _inside(index: jax.Array, size: int, fill: str) -> jax.Array:
    """Return which of `size` places an index outside stands for."""
    if fill == "reflect":
        index = index % (2 * size)
        return jnp.minimum(index, 2 * size - 1 - index)
    return jnp.clip(index, 0, size - 1)
