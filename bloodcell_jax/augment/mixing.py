"""Operations that mix an image with another one: MixUp, CutMix and FMix, also called FourierMix.

Each is a function `operation(key, image, other, *, ...) -> (mixed image, share)`. `share`, float32, is the mass of the
image's own label. The label of the other image has the rest. The share equals the mass of the image's pixels, whatever
box or mask is drawn.
"""

import jax
import jax.numpy as jnp

from bloodcell_jax.augment.declaration import operation
from bloodcell_jax.augment.options import COMPAT, Number
from bloodcell_jax.augment.pixels import Scalar, size_of, to_float32, to_unit_range


@operation(alpha=Number(0.01, 100))
def mixup(key: jax.Array, image: jax.Array, other: jax.Array, *, alpha: Scalar = 0.2) -> tuple[jax.Array, jax.Array]:
    """Average two images, with lambda ~ Beta(alpha, alpha) as the weight of the first.

    Zhang et al. 2017 (arXiv:1710.09412).

    Args:
      key: random key of this image.
      image, other: [h, w, c].
      alpha: both parameters of the Beta distribution.

    Returns:
      The mixed image and the share of the image's own label.
    """
    share, other = _draw_lambda(key, alpha), to_float32(other)
    return to_unit_range(other + share * (to_float32(image) - other), image.dtype), share


@operation(alpha=Number(0.01, 100), compat=COMPAT)
def cutmix(
    key: jax.Array, image: jax.Array, other: jax.Array, *, alpha: Scalar = 1.0, compat: str = "none"
) -> tuple[jax.Array, jax.Array]:
    """Paste a box of another image at the same place.

    Yun et al. 2019 (arXiv:1905.04899): lambda ~ Beta(alpha, alpha), and the box's sides are sqrt(1 - lambda) of the
    image's. Its center lies anywhere in the image. The part of the box outside the image is cut off.

    Args:
      key: random key of this image.
      image, other: [h, w, c].
      alpha: both parameters of the Beta distribution.
      compat: `kerascv` gives the other's label the mass of the whole box, as KerasCV 0.9 does, although on average 36 %
        of the box lies outside the image.

    Returns:
      The mixed image and the share of the image's own label.
    """
    height, width = size_of(image)
    drawn = _draw_lambda(jax.random.fold_in(key, 0), alpha)
    center_y, center_x = (
        jax.random.randint(jax.random.fold_in(key, 1 + axis), (), 0, size) for axis, size in enumerate((height, width))
    )
    rows = _near(center_y, jnp.sqrt(1 - drawn) * height, height)
    columns = _near(center_x, jnp.sqrt(1 - drawn) * width, width)
    box = rows[:, None] & columns
    share = drawn if compat == "kerascv" else 1 - box.mean(dtype=jnp.float32)
    return jnp.where(box[..., None], other, image), share


@operation(alpha=Number(0.01, 100), decay=Number(0, 10), compat=COMPAT)
def fmix(
    key: jax.Array,
    image: jax.Array,
    other: jax.Array,
    *,
    alpha: Scalar = 1.0,
    decay: Scalar = 3.0,
    compat: str = "none",
) -> tuple[jax.Array, jax.Array]:
    """Mix two images with a mask made of low-pass noise: FMix, also called FourierMix.

    Harris et al. 2020 (arXiv:2002.12047, section 4): the amplitude of the noise falls with frequency to the power
    `decay`. The image keeps the lambda * h * w pixels with the highest noise, lambda ~ Beta(alpha, alpha).

    Args:
      key: random key of this image.
      image, other: [h, w, c].
      alpha: both parameters of the Beta distribution.
      decay: the higher it is, the smoother is the mask.
      compat: `kerascv` takes the spectrum from the wrong axis, as KerasCV 0.9 does. Its mask has no horizontal
        frequency above 1.

    Returns:
      The mixed image and the share of the image's own label.
    """
    height, width = size_of(image)
    spectrum_key, lambda_key = jax.random.split(key)
    draw_spectrum = _wrong_axis_spectrum if compat == "kerascv" else _low_pass_spectrum
    noise = jnp.fft.irfft2(draw_spectrum(spectrum_key, (height, width), decay), (height, width))
    mask = noise >= _threshold(noise, _draw_lambda(lambda_key, alpha))
    return jnp.where(mask[..., None], image, other), mask.mean(dtype=jnp.float32)


def _threshold(noise: jax.Array, share: jax.Array) -> jax.Array:
    """Return the value with a given share of the noise at or above it, exact to one pixel.

    The function halves an interval. Sorting 256 masks of 96 px takes 20 times as long on the CPU.
    """
    kept = jnp.round(share * noise.size)

    def halve(_, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        too_many = (noise >= middle).sum() > kept
        return jnp.where(too_many, middle, low), jnp.where(too_many, high, middle)

    span = noise.max() - noise.min()
    # 24 halvings are as fine as float32 near the ends. The upper bound keeps no pixel, the lower bound keeps all.
    bounds = noise.min() - 1e-3 * span, noise.max() + 1e-3 * span
    return jax.lax.fori_loop(0, 24, halve, bounds)[1]


def _draw_lambda(key: jax.Array, alpha: Scalar) -> jax.Array:
    return jax.random.beta(key, alpha, alpha, dtype=jnp.float32)


def _near(center: jax.Array, side: jax.Array, size: int) -> jax.Array:
    """Return which of `size` places lie within half a side, rounded down, of a center."""
    half = side.astype(jnp.int32) // 2
    places = jnp.arange(size)
    return (places >= center - half) & (places < center + half)


def _amplitude(shape: tuple[int, int], decay: Scalar) -> jax.Array:
    """Return 1 / frequency ** decay, [h, w // 2 + 1]. Frequency 0 counts as the lowest frequency above it."""
    height, width = shape
    frequency = jnp.hypot(jnp.fft.fftfreq(height)[:, None], jnp.fft.rfftfreq(width))
    return jnp.maximum(frequency, 1 / max(shape)) ** -decay


def _low_pass_spectrum(key: jax.Array, shape: tuple[int, int], decay: Scalar) -> jax.Array:
    amplitude = _amplitude(shape, decay)
    real, imaginary = jax.random.normal(key, (2, *amplitude.shape))
    return amplitude * (real + 1j * imaginary)


def _wrong_axis_spectrum(key: jax.Array, shape: tuple[int, int], decay: Scalar) -> jax.Array:
    """Return a spectrum [h, w // 2 + 1] that takes rows 0 and 1 of the noise [h, w // 2 + 1, 2] for its two parts."""
    amplitude = _amplitude(shape, decay)
    real, imaginary = jax.random.normal(key, (2, amplitude.shape[1], 2)) * amplitude[:2, :, None]
    filled = min(shape[0], amplitude.shape[1])
    spectrum = jnp.zeros(amplitude.shape, jnp.complex64)
    return spectrum.at[:filled, :2].set((real + 1j * imaginary)[:filled])
