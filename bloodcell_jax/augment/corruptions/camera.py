"""Corruptions by camera and file: noise, coarse pixels, JPEG, brightness, contrast and color."""

import dm_pix as pix
import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, xlogy

from bloodcell_jax.augment.compression import compress
from bloodcell_jax.augment.enhance import enhance_brightness, enhance_contrast
from bloodcell_jax.augment.pixels import Scalar, to_levels, to_unit_range

# A power of two that a Poisson distribution of mean 60 does not reach.
_MOST_PHOTONS = 128


def gaussian_noise(key: jax.Array, image: jax.Array, sigma: Scalar) -> jax.Array:
    """Add normal noise with standard deviation `sigma` in units of the full range."""
    return to_unit_range(image + sigma * jax.random.normal(key, image.shape), image.dtype)


def shot_noise(key: jax.Array, image: jax.Array, photons: Scalar) -> jax.Array:
    """Count photons, `photons` on average at full brightness, at most 60, by a Poisson distribution.

    An image has 256 levels, so the distribution functions fit a table, which is searched for a uniform number. It takes
    a twentieth of the time of `jax.random.poisson`, which rejects draws until all are good.
    """
    levels, counts = jnp.arange(256) / 255 * photons, jnp.arange(_MOST_PHOTONS)
    log_probability = xlogy(counts, levels[:, None]) - levels[:, None] - gammaln(counts + 1)
    below = jnp.cumsum(jnp.exp(log_probability), axis=1).ravel()
    start = to_levels(image).astype(jnp.int32) * _MOST_PHOTONS
    drawn, found = jax.random.uniform(key, image.shape), jnp.zeros(image.shape, jnp.int32)
    for half in (64, 32, 16, 8, 4, 2, 1):
        passed = below.at[start + found + half - 1].get(mode="promise_in_bounds") < drawn
        found = found + half * passed
    return to_unit_range(found / photons, image.dtype)


def impulse_noise(key: jax.Array, image: jax.Array, share: Scalar) -> jax.Array:
    """Replace a share of all values by 0 or 1, equally often."""
    draws = jax.random.uniform(key, image.shape)
    return jnp.where(draws < share / 2, 0.0, jnp.where(draws < share, 1.0, image))


def pixelate(key: jax.Array, image: jax.Array, part: Scalar) -> jax.Array:
    """Shrink a square image to `part` of its side and enlarge it again, as Pillow's BOX filter does."""
    side = len(image)
    # 1e-3 keeps 0.3 * 10 from being 2.9999998.
    small = jnp.floor(part * side + 1e-3).astype(jnp.int32)
    shrink, enlarge = _box_matrix(side, side, small), _box_matrix(side, small, side)

    def resize(levels: jax.Array, matrix: jax.Array) -> jax.Array:
        # Pillow resizes along rows first, and rounds to levels after each axis.
        rows = jnp.floor(jnp.einsum("hjc,ij->hic", levels, matrix, precision="highest") + 0.5)
        return jnp.floor(jnp.einsum("jwc,ij->iwc", rows, matrix, precision="highest") + 0.5)

    return to_unit_range(resize(resize(to_levels(image), shrink), enlarge) / 255, image.dtype)


def _box_matrix(size: int, source: Scalar, target: Scalar) -> jax.Array:
    """Return the matrix [size, size] that resizes a line of `source` pixels to `target`, by Pillow's BOX filter.

    An output pixel is the mean of the input pixels whose centers lie under it, or else the pixel that it lies in. Rows
    from `target` on are 0.
    """
    output, pixels = jnp.arange(size)[:, None], jnp.arange(size)
    # Whole numbers: 2 * place * size compares exactly.
    center = (2 * pixels + 1) * target
    under = (2 * output * source < center) & (center <= 2 * (output + 1) * source)
    nearest = pixels == (2 * output + 1) * source // (2 * target)
    chosen = jnp.where(target < source, under, nearest) & (output < target) & (pixels < source)
    return chosen / jnp.maximum(chosen.sum(1, keepdims=True), 1)


def jpeg(key: jax.Array, image: jax.Array, quality: Scalar) -> jax.Array:
    """Compress an image as a JPEG file with a quality from 1 to 100."""
    return compress(image, quality)


def brightness(key: jax.Array, image: jax.Array, factor: Scalar) -> jax.Array:
    """Multiply an image by a factor, as Pillow's ImageEnhance does."""
    return enhance_brightness(image, factor=factor)


def contrast(key: jax.Array, image: jax.Array, factor: Scalar) -> jax.Array:
    """Multiply the distance from the mean gray by a factor, as Pillow's ImageEnhance does."""
    return enhance_contrast(image, factor=factor)


def brightness_of_hsv(key: jax.Array, image: jax.Array, amount: Scalar) -> jax.Array:
    """Add an amount to the value (HSV) of each pixel, as ImageNet-C does."""
    return _change_hsv(image, value=amount)


def contrast_of_channels(key: jax.Array, image: jax.Array, factor: Scalar) -> jax.Array:
    """Multiply the distance of each channel from its mean by a factor, as ImageNet-C does."""
    return to_unit_range(pix.adjust_contrast(image, factor), image.dtype)


def saturate(key: jax.Array, image: jax.Array, amount: Scalar) -> jax.Array:
    """Add an amount to the saturation (HSV) of each pixel, as MedMNIST-C does; gray has hue 0 and becomes red."""
    return _change_hsv(image, saturation=amount)


def _change_hsv(image: jax.Array, *, saturation: Scalar = 0.0, value: Scalar = 0.0) -> jax.Array:
    hue, saturations, values = jnp.moveaxis(pix.rgb_to_hsv(image), -1, 0)
    planes = [hue, jnp.clip(saturations + saturation, 0, 1), jnp.clip(values + value, 0, 1)]
    return to_unit_range(pix.hsv_to_rgb(jnp.stack(planes, axis=-1)), image.dtype)
