"""JPEG on the device: the changes that libjpeg's encoder and decoder make, without the lossless steps between them.

The standard is ITU-T T.81, and the arithmetic is libjpeg's: whole numbers wherever libjpeg has them, its slow DCT
(`JDCT_ISLOW`), and 4:2:0 chroma, which is averaged on the way in and "fancy" (triangle-filtered) on the way out. Only
sums inside the DCT that need more than 24 bits are rounded here. In a test of 4,352 images at 17 qualities, 60 images
differed from Pillow's, each in one or two values by one level.
"""

import jax
import jax.numpy as jnp
import numpy as np

from bloodcell_jax.augment.declaration import operation
from bloodcell_jax.augment.options import Number
from bloodcell_jax.augment.pixels import Scalar, Strength, draw, from_levels, size_of, to_levels

BLOCK = 8

# The quantization steps at quality 50, by vertical and horizontal frequency (T.81, tables K.1 and K.2).
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMINANCE = np.full((BLOCK, BLOCK), 99)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# The DCT of 8 numbers [frequency, place], times the root of 8, which makes the first row ones, in multiples of 2^-13.
# libjpeg multiplies by rounded constants. Their products are these numbers, up to 1 off the cosines, and the
# difference decides roundings. libjpeg's inverse has the same numbers. The second half of a row mirrors the first half,
# and an odd row negates it.
_DCT = np.array(
    [
        [8192, 8192, 8192, 8192],
        [11363, 9633, 6437, 2260],
        [10703, 4433, -4433, -10703],
        [9633, -2259, -11362, -6436],
        [8192, -8192, -8192, 8192],
        [6437, -11362, 2261, 9633],
        [4433, -10704, 10704, -4433],
        [2260, -6436, 9633, -11363],
    ]
)
_DCT = np.hstack([_DCT, _DCT[:, ::-1] * np.tile([[1], [-1]], (4, 1))]) / 8192


@operation(quality=Number(1, 100, whole=True, drawn=True))
def jpeg(key: jax.Array, image: jax.Array, *, quality: Strength = (40.0, 95.0)) -> jax.Array:
    """Compress an image as JPEG, 4:2:0, as Pillow's `save(quality=...)` does.

    Args:
      key: random key of this image.
      image: [h, w, 3].
      quality: whole number from 1 to 100, or the range (low, high) to draw it from, both ends included.
    """
    low, high = quality if isinstance(quality, tuple) else (quality, quality)
    return compress(image, jnp.floor(draw(key, (low, high + 1))))


def compress(image: jax.Array, quality: Scalar) -> jax.Array:
    """Return an image [h, w, 3] of any size as a JPEG file with a quality from 1 to 100 would give it back."""
    luma, *chroma = _to_luma_chroma(to_levels(image).astype(jnp.int32))
    shape = size_of(image)
    luma = _quantize(luma, quantization_steps(LUMINANCE, quality))
    steps = quantization_steps(CHROMINANCE, quality)
    chroma = jax.vmap(lambda plane: _upsample(_quantize(_downsample(plane), steps), shape))(jnp.stack(chroma))
    return from_levels(_to_rgb(luma, *chroma).astype(jnp.float32), image.dtype)


def quantization_steps(table: np.ndarray, quality: Scalar) -> jax.Array:
    """Return the quantization steps [8, 8] of a quality, float32, from those of quality 50 by libjpeg's scaling."""
    quality = jnp.clip(jnp.round(quality), 1, 100)
    # libjpeg floors quotients of whole numbers. 1e-3 keeps a whole quotient from falling just below itself.
    percent = jnp.where(quality < 50, jnp.floor(5000 / quality + 1e-3), 200 - 2 * quality)
    return jnp.clip(jnp.floor((table * percent + 50) / 100 + 1e-3), 1, 255)


def _quantize(plane: jax.Array, steps: jax.Array) -> jax.Array:
    """Return a plane [h, w] of levels, int32, after the DCT of its 8x8 blocks is rounded to multiples of `steps`."""
    height, width = plane.shape
    padded = _pad(plane, BLOCK, BLOCK)
    blocks = padded.reshape(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK).astype(jnp.float32) - 128
    # libjpeg keeps two more bits between rows and columns, and its coefficients are 8 times as large.
    rows = _round(4 * _transform("hywx,vx->hywv", blocks, _DCT))
    coefficients = _round(_transform("hywv,uy->huwv", rows, _DCT) / 4)
    steps = steps[:, None, :]
    # The numerator is whole. Another half cannot reach the next multiple and keeps a quotient from falling below one.
    multiples = jnp.floor((jnp.abs(coefficients) + 4 * steps + 0.5) / (8 * steps))
    coefficients = jnp.sign(coefficients) * multiples * steps
    columns = _round(4 * _transform("huwv,uy->hywv", coefficients, _DCT))
    blocks = _round(_transform("hywv,vx->hywx", columns, _DCT) / 32) + 128
    return jnp.clip(blocks, 0, 255).reshape(padded.shape)[:height, :width].astype(jnp.int32)


def _transform(axes: str, blocks: jax.Array, matrix: np.ndarray) -> jax.Array:
    # By default accelerators multiply in fewer bits than these whole numbers need.
    return jnp.einsum(axes, blocks, matrix.astype(np.float32), precision=jax.lax.Precision.HIGHEST)


def _round(values: jax.Array) -> jax.Array:
    """Return the nearest whole numbers. Halves are rounded up, as libjpeg's shifts do."""
    return jnp.floor(values + 0.5)


def _to_luma_chroma(levels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return luma and the two chroma planes [h, w] of RGB levels [h, w, 3], int32, by JFIF in 16-bit fixed point."""
    red, green, blue = jnp.moveaxis(levels, -1, 0)
    half, middle = 1 << 15, (128 << 16) + (1 << 15) - 1
    return (
        (19595 * red + 38470 * green + 7471 * blue + half) >> 16,
        (-11059 * red - 21709 * green + 32768 * blue + middle) >> 16,
        (32768 * red - 27439 * green - 5329 * blue + middle) >> 16,
    )


def _to_rgb(luma: jax.Array, blueness: jax.Array, redness: jax.Array) -> jax.Array:
    """Return the RGB levels [h, w, 3] of luma and chroma planes [h, w], int32. Some lie outside 0..255."""
    half = 1 << 15
    blueness, redness = blueness - 128, redness - 128
    red = luma + ((91881 * redness + half) >> 16)
    green = luma + ((-22554 * blueness - 46802 * redness + half) >> 16)
    blue = luma + ((116130 * blueness + half) >> 16)
    return jnp.stack([red, green, blue], axis=-1)


def _downsample(plane: jax.Array) -> jax.Array:
    """Return the means of a plane's 2x2 squares, int32. Along a row, halves are rounded down and up in turn."""
    # libjpeg repeats the last column before the averaging, to whole blocks, and the last row after it.
    plane = _pad(plane, 2, 2 * BLOCK)
    rows = plane[::2] + plane[1::2]
    sums = rows[:, ::2] + rows[:, 1::2]
    return (sums + 1 + jnp.arange(sums.shape[1]) % 2) >> 2


def _upsample(plane: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Return a plane at twice its size, cut to `shape`.

    Along each axis a value is three parts of the nearest one and one part of the next.
    """
    height, width = shape
    plane = plane[: (height + 1) // 2, : (width + 1) // 2]
    above, below = (jnp.pad(plane, (pad, (0, 0)), mode="edge") for pad in ((1, 0), (0, 1)))
    rows = jnp.stack([3 * plane + above[:-1], 3 * plane + below[1:]], axis=1).reshape(-1, plane.shape[1])
    left, right = (jnp.pad(rows, ((0, 0), pad), mode="edge") for pad in ((1, 0), (0, 1)))
    columns = jnp.stack([3 * rows + left[:, :-1] + 8, 3 * rows + right[:, 1:] + 7], axis=2) >> 4
    return columns.reshape(len(rows), -1)[:height, :width]


def _pad(plane: jax.Array, rows: int, columns: int) -> jax.Array:
    """Return a plane [h, w] with its border repeated until its size is a multiple of (rows, columns)."""
    height, width = plane.shape
    return jnp.pad(plane, ((0, -height % rows), (0, -width % columns)), mode="edge")
