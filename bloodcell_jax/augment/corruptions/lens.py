"""Corruptions by lens and motion: defocus, motion and zoom blur, uneven glass, and an image stretched like rubber."""

import math

import jax
import jax.numpy as jnp

from bloodcell_jax.augment.filters import blur
from bloodcell_jax.augment.geometry import affine_matrix, inside, sample, warp
from bloodcell_jax.augment.pixels import Scalar, size_of, to_unit_range

# The largest severities of the suites: they fix the size of kernels, which can not be traced.
_MOST_DEFOCUS = 10 / 224
_MOST_MOTION = 40 / 224
_MOTION_TAPS = 41
_ZOOMS = 16
_SUBPIXELS = 8


def defocus(key: jax.Array, image: jax.Array, radius: Scalar) -> jax.Array:
    """Blur an image as a lens out of focus does: each point becomes a disk.

    A published disk is a set of whole pixels. At 96 px the smallest radius is 0.9 pixels, so here a pixel on the edge
    of the disk counts by the part of it that lies inside.

    Args:
      key: not used.
      image: [h, w, 3] with h = w.
      radius: of the disk, as a part of the side, at most 10/224.
    """
    kernel = disk(radius * len(image), reach=math.ceil(_MOST_DEFOCUS * len(image) + 0.5))
    reach = len(kernel) // 2
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    # Channels are the batch of the convolution: XLA's CPU backend is slow at a convolution for each channel.
    planes = jax.lax.conv_general_dilated(
        jnp.moveaxis(padded, -1, 0)[..., None],
        kernel[..., None, None],
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return to_unit_range(jnp.moveaxis(planes[..., 0], 0, -1), image.dtype)


def disk(radius: Scalar, *, reach: int) -> jax.Array:
    """Return the weights [2 * reach + 1, 2 * reach + 1] of a disk of `radius` pixels, with sum 1."""
    size = 2 * reach + 1
    places = (jnp.arange(size * _SUBPIXELS) + 0.5) / _SUBPIXELS - size / 2
    inside = jnp.square(places)[:, None] + jnp.square(places) <= jnp.square(radius)
    weights = inside.reshape(size, _SUBPIXELS, size, _SUBPIXELS).mean((1, 3))
    return weights / weights.sum()


def motion(key: jax.Array, image: jax.Array, radius: Scalar, sigma: Scalar) -> jax.Array:
    """Blur an image as a moving stage does: half a Gaussian along a line, up to 45 degrees off the horizontal.

    ImageMagick's MotionBlur adds 2 * radius + 1 shifted images, with the weights of a Gaussian from its middle on.

    Args:
      key: random key of this image, for the angle.
      image: [h, w, 3] with h = w.
      radius: half the length of the line, as a part of the side, at most 20/224.
      sigma: standard deviation of the Gaussian, as a part of the side.
    """
    angle = jnp.deg2rad(jax.random.uniform(key, minval=-45.0, maxval=45.0))
    side = len(image)
    distances = jnp.linspace(0.0, 1.0, _MOTION_TAPS) * 2 * radius
    weights = jnp.exp(-0.5 * jnp.square(distances / sigma))
    weights = weights / weights.sum()
    reach = math.ceil(_MOST_MOTION * side) + 1
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")

    def add_shifted(total: jax.Array, tap: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        distance, weight = tap
        down, right = jnp.sin(angle) * distance * side, jnp.cos(angle) * distance * side
        return total + weight * _between_pixels(padded, reach + down, reach + right, side), None

    blurred, _ = jax.lax.scan(add_shifted, jnp.zeros_like(image), (distances, weights))
    return to_unit_range(blurred, image.dtype)


def zoom(key: jax.Array, image: jax.Array, most: Scalar) -> jax.Array:
    """Average an image with 16 enlargements of it, from factor 1 to `most`."""

    def add_zoomed(total: jax.Array, factor: jax.Array) -> tuple[jax.Array, None]:
        matrix = affine_matrix(size_of(image), zoom=factor)
        return total + warp(image, matrix, fill="edge"), None

    total, _ = jax.lax.scan(add_zoomed, image, jnp.linspace(1.0, most, _ZOOMS))
    return to_unit_range(total / (_ZOOMS + 1), image.dtype)


def glass(key: jax.Array, image: jax.Array, sigma: Scalar, distance: Scalar, rounds: Scalar) -> jax.Array:
    """Look at an image through uneven glass: blur it, move each pixel at random, and blur it again.

    ImageNet-C exchanges neighboring pixels one after the other. Here all pixels move at once, `rounds` times.

    Args:
      key: random key of this image.
      image: [h, w, 3] with h = w.
      sigma: standard deviation of the blur, as a part of the side, at most 1.5/224.
      distance: farthest move along each axis, as a part of the side.
      rounds: number of moves.
    """
    side = len(image)
    radius = math.ceil(4 * 1.5 / 224 * side)
    image = blur(image, sigma * side, radius=radius)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(side), jnp.arange(side), indexing="ij"))

    def move(number: int, image: jax.Array) -> jax.Array:
        moves = jax.random.uniform(jax.random.fold_in(key, number), grid.shape, minval=-1, maxval=1)
        return sample(image, *(grid + moves * distance * side), fill="edge")

    image = jax.lax.fori_loop(0, jnp.asarray(rounds, jnp.int32), move, image)
    return blur(image, sigma * side, radius=radius)


def elastic(key: jax.Array, image: jax.Array, strength: Scalar, sigma: Scalar, corners: Scalar) -> jax.Array:
    """Stretch an image like rubber: smooth random moves, after a random affine map.

    Simard, Steinkraus and Platt 2003, with the affine map of ImageNet-C.

    Args:
      key: random key of this image.
      image: [h, w, 3] with h = w.
      strength: moves before they are smoothed are drawn from -strength to strength, parts of the side.
      sigma: standard deviation of the Gaussian that smooths them, as a part of the side.
      corners: each of three corners is moved by up to this part of the side along each axis.
    """
    side = len(image)
    corner_key, move_key = jax.random.split(key)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(side), jnp.arange(side), indexing="ij")).astype(jnp.float32)
    # Where three points of the output lie in the input: the middle third spans the map, as in ImageNet-C.
    third, center = side / 3, (side - 1) / 2
    ends = jnp.array([[third, third], [third, -third], [-third, -third]])
    moved = ends + jax.random.uniform(corner_key, ends.shape, minval=-1, maxval=1) * corners * side
    across, down = (moved[0] - moved[1]) / (2 * third), (moved[1] - moved[2]) / (2 * third)
    origin = (moved[0] + moved[2]) / 2
    y, x = grid - center
    places = origin[:, None, None] + down[:, None, None] * y + across[:, None, None] * x + center
    smooth = _gaussian_matrix(side, sigma * side)
    moves = jax.random.uniform(move_key, grid.shape, minval=-1, maxval=1)
    moves = jnp.einsum("ij,ajk,lk->ail", smooth, moves, smooth) * strength * side
    return sample(image, *(places + moves), fill="edge")


def _gaussian_matrix(side: int, sigma: Scalar) -> jax.Array:
    """Return the matrix [side, side] that blurs a line with a Gaussian; the line is repeated outside by reflection."""
    reach = 3 * side
    sources = jnp.arange(-reach, side + reach)
    weights = jnp.exp(-0.5 * jnp.square((sources - jnp.arange(side)[:, None]) / sigma))
    weights = weights / weights.sum(1, keepdims=True)
    places = inside(sources, side, "reflect")
    return weights @ (places[:, None] == jnp.arange(side)).astype(jnp.float32)


def _between_pixels(image: jax.Array, top: Scalar, left: Scalar, side: int) -> jax.Array:
    """Return the square [side, side, c] of an image whose upper left pixel lies at (top, left), between pixels."""
    row, column = jnp.floor(top), jnp.floor(left)
    window = jax.lax.dynamic_slice(
        image,
        (row.astype(jnp.int32), column.astype(jnp.int32), jnp.int32(0)),
        (side + 1, side + 1, image.shape[-1]),
    )
    rows = window[:-1] + (top - row) * (window[1:] - window[:-1])
    return rows[:, :-1] + (left - column) * (rows[:, 1:] - rows[:, :-1])
