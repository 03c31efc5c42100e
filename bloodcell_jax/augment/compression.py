"""JPEG on the device: what libjpeg's encoder and decoder do to an image, without the lossless steps between them.

ITU-T T.81 with libjpeg's arithmetic: whole numbers wherever libjpeg has them, its slow DCT (`JDCT_ISLOW`), 4:2:0
chroma averaged on the way in and "fancy" (triangle-filtered) on the way out. Only sums inside the DCT that need more
than 24 bits are rounded here: of 4,352 images at 17 qualities 60 differed from Pillow's, in one value or two by one
level.
"""

import jax
import jax.numpy as jnp
import numpy as np

from bloodcell_jax.augment.pixels import Strength, draw, from_levels, to_levels

BLOCK = 8

# T.81, tables K.1 and K.2: quantization steps at quality 50, by vertical and horizontal frequency.
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

# The DCT of 8 numbers, times the root of 8, which makes its first row ones: [frequency, place], as multiples of 2^-13.
# These are the products that libjpeg's few multiplications by rounded constants amount to, and its inverse has the
# same: up to 1 off the cosines, which decides roundings. A row's second half mirrors its first, negated if odd.
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


def jpeg(key: jax.Array, image: jax.Array, *, quality: Strength = (40.0, 95.0)) -> jax.Array:
    """Send an image [h, w, 3] through JPEG at a quality from 1 to 100, 4:2:0, as Pillow's `save(quality=...)` does.

    Args:
      quality: the quality, or the range (low, high) to draw it from: whole numbers, both ends included.
    """
    low, high = quality if isinstance(quality, tuple) else (quality, quality)
    return compress(image, jnp.floor(draw(key, (low, high + 1))))


def compress(image: jax.Array, quality: jax.Array | float) -> jax.Array:
    """Return an image [h, w, 3] of any size as it comes out of a JPEG file of a quality from 1 to 100."""
    luma, *chroma = _to_luma_chroma(to_levels(image).astype(jnp.int32))
    shape = luma.shape
    luma = _quantize(luma, quantisation_steps(LUMINANCE, quality))
    steps = quantisation_steps(CHROMINANCE, quality)
    chroma = jax.vmap(lambda plane: _upsample(_quantize(_downsample(plane), steps), shape))(jnp.stack(chroma))
    return from_levels(_to_rgb(luma, *chroma).astype(jnp.float32), image.dtype)


def quantisation_steps(table: np.ndarray, quality: jax.Array | float) -> jax.Array:
    """Return the quantization steps [8, 8] of a quality, float32, by libjpeg's scaling of those of quality 50."""
    quality = jnp.clip(jnp.round(quality), 1, 100)
    # Whole numbers are floored; 1e-3 puts quotients that are whole on the right side.
    percent = jnp.where(quality < 50, jnp.floor(5000 / quality + 1e-3), 200 - 2 * quality)
    return jnp.clip(jnp.floor((table * percent + 50) / 100 + 1e-3), 1, 255)


def _quantize(plane: jax.Array, steps: jax.Array) -> jax.Array:
    """Return a plane [h, w] of levels after the DCT of its 8x8 blocks was rounded to multiples of `steps`, int32."""
    height, width = plane.shape
    padded = _pad(plane, BLOCK, BLOCK)
    blocks = padded.reshape(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK).astype(jnp.float32) - 128
    # libjpeg keeps two more bits between rows and columns, and 8 times the coefficients.
    rows = _round(4 * _transform("hywx,vx->hywv", blocks, _DCT))
    coefficients = _round(_transform("hywv,uy->huwv", rows, _DCT) / 4)
    steps = steps[:, None, :]
    # Whole numbers: another half in the numerator cannot reach the next one, and spares a division just below it.
    multiples = jnp.floor((jnp.abs(coefficients) + 4 * steps + 0.5) / (8 * steps))
    coefficients = jnp.sign(coefficients) * multiples * steps
    columns = _round(4 * _transform("huwv,uy->hywv", coefficients, _DCT))
    blocks = _round(_transform("hywv,vx->hywx", columns, _DCT) / 32) + 128
    return jnp.clip(blocks, 0, 255).reshape(padded.shape)[:height, :width].astype(jnp.int32)


def _transform(axes: str, blocks: jax.Array, matrix: np.ndarray) -> jax.Array:
    # Accelerators would multiply in fewer bits than the whole numbers here need.
    return jnp.einsum(axes, blocks, matrix.astype(np.float32), precision=jax.lax.Precision.HIGHEST)


def _round(values: jax.Array) -> jax.Array:
    """Return the nearest whole numbers, halves rounded up, as libjpeg's shifts do."""
    return jnp.floor(values + 0.5)


def _to_luma_chroma(levels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return luma and the two chroma planes [h, w] of RGB levels [h, w, 3], all int32: JFIF in 16-bit fixed point."""
    red, green, blue = jnp.moveaxis(levels, -1, 0)
    half, middle = 1 << 15, (128 << 16) + (1 << 15) - 1
    return (
        (19595 * red + 38470 * green + 7471 * blue + half) >> 16,
        (-11059 * red - 21709 * green + 32768 * blue + middle) >> 16,
        (32768 * red - 27439 * green - 5329 * blue + middle) >> 16,
    )


def _to_rgb(luma: jax.Array, blueness: jax.Array, redness: jax.Array) -> jax.Array:
    """Return the RGB levels [h, w, 3] of luma and chroma planes [h, w], int32; some lie outside 0..255."""
    half = 1 << 15
    blueness, redness = blueness - 128, redness - 128
    red = luma + ((91881 * redness + half) >> 16)
    green = luma + ((-22554 * blueness - 46802 * redness + half) >> 16)
    blue = luma + ((116130 * blueness + half) >> 16)
    return jnp.stack([red, green, blue], axis=-1)


def _downsample(plane: jax.Array) -> jax.Array:
    """Return the means of a plane's 2x2 squares, int32; halves are rounded down and up in turn along a row."""
    # As many columns as whole blocks need, before they are averaged; libjpeg repeats rows afterwards.
    plane = _pad(plane, 2, 2 * BLOCK)
    rows = plane[::2] + plane[1::2]
    sums = rows[:, ::2] + rows[:, 1::2]
    return (sums + 1 + jnp.arange(sums.shape[1]) % 2) >> 2


def _upsample(plane: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Return a plane twice its size, cut to `shape`: each way three parts of the nearest and one of the next."""
    height, width = shape
    plane = plane[: (height + 1) // 2, : (width + 1) // 2]
    above, below = (jnp.pad(plane, (pad, (0, 0)), mode="edge") for pad in ((1, 0), (0, 1)))
    rows = jnp.stack([3 * plane + above[:-1], 3 * plane + below[1:]], axis=1).reshape(-1, plane.shape[1])
    left, right = (jnp.pad(rows, ((0, 0), pad), mode="edge") for pad in ((1, 0), (0, 1)))
    columns = jnp.stack([3 * rows + left[:, :-1] + 8, 3 * rows + right[:, 1:] + 7], axis=2) >> 4
    return columns.reshape(len(rows), -1)[:height, :width]


def _pad(plane: jax.Array, rows: int, columns: int) -> jax.Array:
    """Return a plane [h, w] whose border is repeated until its size is a multiple of (rows, columns)."""
    height, width = plane.shape
    return jnp.pad(plane, ((0, -height % rows), (0, -width % columns)), mode="edge")
