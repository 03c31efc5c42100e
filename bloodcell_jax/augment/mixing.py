"""Operations that mix an image with another and say which part of the label is still its own.

Each is `operation(key, image, other, *, ...) -> (mixed image, share)`: `share`, float32, is the mass of the image's own
label; the other's has the rest. It equals the mass of the pixels, whatever the box or mask came to be.
"""

import jax
import jax.numpy as jnp

from bloodcell_jax.augment.pixels import to_float32, to_unit_range


def mixup(
    key: jax.Array, image: jax.Array, other: jax.Array, *, alpha: jax.Array | float = 0.2
) -> tuple[jax.Array, jax.Array]:
    """Average two images [h, w, c], lambda ~ Beta(alpha, alpha) (Zhang et al. 2017, arXiv:1710.09412)."""
    share, other = _draw_lambda(key, alpha), to_float32(other)
    return to_unit_range(other + share * (to_float32(image) - other), image.dtype), share


def cutmix(
    key: jax.Array, image: jax.Array, other: jax.Array, *, alpha: jax.Array | float = 1.0, compat: str = "none"
) -> tuple[jax.Array, jax.Array]:
    """Paste a box of the other image [h, w, c] (Yun et al. 2019, arXiv:1905.04899).

    Lambda ~ Beta(alpha, alpha), the box's sides are sqrt(1 - lambda) of the image's, and its center lies anywhere; what
    leaves the image is cut off.

    Args:
      compat: `kerascv` gives the other's label the whole box, as KerasCV 0.9 does, though on average 36 % of it lies
        outside the image.
    """
    height, width, _ = image.shape
    drawn = _draw_lambda(jax.random.fold_in(key, 0), alpha)
    center_y, center_x = (
        jax.random.randint(jax.random.fold_in(key, 1 + axis), (), 0, size) for axis, size in enumerate((height, width))
    )
    rows = _near(center_y, jnp.sqrt(1 - drawn) * height, height)
    columns = _near(center_x, jnp.sqrt(1 - drawn) * width, width)
    box = rows[:, None] & columns
    share = drawn if compat == "kerascv" else 1 - box.mean(dtype=jnp.float32)
    return jnp.where(box[..., None], other, image), share


def fmix(
    key: jax.Array,
    image: jax.Array,
    other: jax.Array,
    *,
    alpha: jax.Array | float = 1.0,
    decay: jax.Array | float = 3.0,
    compat: str = "none",
) -> tuple[jax.Array, jax.Array]:
    """Mix two images [h, w, c] by a mask cut out of low-pass noise: FMix, FourierMix (Harris et al. 2020).

    Section 4 of arXiv:2002.12047: noise whose amplitude falls with frequency to the power `decay`; the image keeps its
    highest lambda * h * w pixels, lambda ~ Beta(alpha, alpha).

    Args:
      compat: `kerascv` takes the spectrum from the wrong axis, as KerasCV 0.9 does: the mask has no horizontal
        frequency above 1.
    """
    height, width, _ = image.shape
    spectrum_key, lambda_key = jax.random.split(key)
    draw_spectrum = _wrong_axis_spectrum if compat == "kerascv" else _low_pass_spectrum
    noise = jnp.fft.irfft2(draw_spectrum(spectrum_key, (height, width), decay), (height, width))
    mask = noise >= _threshold(noise, _draw_lambda(lambda_key, alpha))
    return jnp.where(mask[..., None], image, other), mask.mean(dtype=jnp.float32)


def _threshold(noise: jax.Array, share: jax.Array) -> jax.Array:
    """Return the value that a share of the noise lies at or above, to the pixel.

    By halving: sorting 256 masks of 96 px took 20 times as long on the CPU.
    """
    kept = jnp.round(share * noise.size)

    def halve(_, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        too_many = (noise >= middle).sum() > kept
        return jnp.where(too_many, middle, low), jnp.where(too_many, high, middle)

    span = noise.max() - noise.min()
    # 24 halvings are as fine as float32 near its ends; at the upper bound no pixel is kept, at the lower one all are.
    bounds = noise.min() - 1e-3 * span, noise.max() + 1e-3 * span
    return jax.lax.fori_loop(0, 24, halve, bounds)[1]


def _draw_lambda(key: jax.Array, alpha: jax.Array | float) -> jax.Array:
    return jax.random.beta(key, alpha, alpha, dtype=jnp.float32)


def _near(center: jax.Array, side: jax.Array, size: int) -> jax.Array:
    """Return which of `size` places lie in a box of whole places about a center, cut off at the border."""
    half = side.astype(jnp.int32) // 2
    places = jnp.arange(size)
    return (places >= center - half) & (places < center + half)


def _amplitude(shape: tuple[int, int], decay: jax.Array | float) -> jax.Array:
    """Return 1 / frequency ** decay, [h, w // 2 + 1]; frequency 0 counts as the lowest of all others."""
    height, width = shape
    frequency = jnp.hypot(jnp.fft.fftfreq(height)[:, None], jnp.fft.rfftfreq(width))
    return jnp.maximum(frequency, 1 / max(shape)) ** -decay


def _low_pass_spectrum(key: jax.Array, shape: tuple[int, int], decay: jax.Array | float) -> jax.Array:
    amplitude = _amplitude(shape, decay)
    real, imaginary = jax.random.normal(key, (2, *amplitude.shape))
    return amplitude * (real + 1j * imaginary)


def _wrong_axis_spectrum(key: jax.Array, shape: tuple[int, int], decay: jax.Array | float) -> jax.Array:
    """Return what indexing the noise [h, w // 2 + 1, 2] by its first axis leaves: rows 0 and 1 as the complex parts."""
    amplitude = _amplitude(shape, decay)
    real, imaginary = jax.random.normal(key, (2, amplitude.shape[1], 2)) * amplitude[:2, :, None]
    filled = min(shape[0], amplitude.shape[1])
    spectrum = jnp.zeros(amplitude.shape, jnp.complex64)
    return spectrum.at[:filled, :2].set((real + 1j * imaginary)[:filled])
