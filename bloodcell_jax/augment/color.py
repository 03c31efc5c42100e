"""What the pixels say: operations on brightness, contrast and color.

Each draws its strength from the key, computes in float32 (in bfloat16 dm-pix's trip through HSV is off by up to 10
gray levels, its hue returns float32 and contrast's mean drifts), clips to [0, 1], as dm-pix does not, and returns the
image's own dtype.

A strength `delta` is the largest change either way, drawn uniformly from [-delta, delta), or the range (low, high)
to draw from. It may be traced; 0 changes nothing.
"""

import dm_pix as pix
import jax
import jax.numpy as jnp

from bloodcell_jax.augment.pixels import Strength, draw, draw_amount, to_float32, to_gray, to_unit_range
from bloodcell_jax.errors import UsageError


def brightness(key: jax.Array, image: jax.Array, *, delta: Strength = 0.2) -> jax.Array:
    """Add one number to all values of an image [h, w, c], in units of the full range."""
    return to_unit_range(pix.adjust_brightness(to_float32(image), draw(key, delta)), image.dtype)


def contrast(key: jax.Array, image: jax.Array, *, delta: Strength = 0.2) -> jax.Array:
    """Multiply the distance of an image [h, w, c] from each channel's mean by 1 + the strength."""
    return to_unit_range(pix.adjust_contrast(to_float32(image), 1 + draw(key, delta)), image.dtype)


def saturation(key: jax.Array, image: jax.Array, *, delta: Strength = 0.2) -> jax.Array:
    """Multiply the saturation (HSV) of an image [h, w, 3] by 1 + the strength; hue and value stay."""
    return to_unit_range(pix.adjust_saturation(to_float32(image), 1 + draw(key, delta)), image.dtype)


def hue(key: jax.Array, image: jax.Array, *, delta: Strength = 0.02) -> jax.Array:
    """Turn the hue (HSV) of an image [h, w, 3] by a part of the color circle; saturation and value stay."""
    return to_unit_range(pix.adjust_hue(to_float32(image), draw(key, delta)), image.dtype)


def gamma(key: jax.Array, image: jax.Array, *, delta: Strength = 0.2) -> jax.Array:
    """Raise the values of an image [h, w, c] to the power exp(strength): above 0 darkens, below 0 brightens."""
    # dm-pix's adjust_gamma takes a power, which is 4 to 10 times as slow on the CPU.
    return to_unit_range(jnp.exp(jnp.exp(draw(key, delta)) * jnp.log(to_float32(image))), image.dtype)


def channel_shift(key: jax.Array, image: jax.Array, *, delta: Strength = 0.05) -> jax.Array:
    """Add to each channel of an image [h, w, c] a number of its own, in units of the full range."""
    return to_unit_range(to_float32(image) + draw(key, delta, image.shape[-1:]), image.dtype)


def color_degeneration(key: jax.Array, image: jax.Array, *, factor: Strength = 0.5) -> jax.Array:
    """Blend an image [h, w, 3] with its gray version: `image + f * (gray - image)`.

    Args:
      factor: f is drawn uniformly from [0, factor), or from the range (low, high), within 0 and 1.
    """
    pixels = to_float32(image)
    return to_unit_range(pixels + draw_amount(key, factor) * (to_gray(pixels) - pixels), image.dtype)


def color_jitter(
    key: jax.Array,
    image: jax.Array,
    *,
    brightness: Strength = 0.2,
    contrast: Strength = 0.2,
    saturation: Strength = 0.2,
    hue: Strength = 0.02,
) -> jax.Array:
    """Change brightness, contrast, saturation and hue of an image [h, w, 3], in this order.

    KerasCV's RandomColorJitter, whose order is fixed too; `from_keras_factor` takes its factors.

    Args:
      brightness, contrast, saturation, hue: strengths, as the operations of these names take them.
    """
    keys = jax.random.split(key, 4)
    # In float32 all the way: rounding to the image's dtype four times would add up.
    pixels = to_float32(image)
    for operation, operation_key, strength in zip(_JITTER, keys, (brightness, contrast, saturation, hue), strict=True):
        pixels = operation(operation_key, pixels, delta=strength)
    return pixels.astype(image.dtype)


# color_jitter's options have the names of these operations, and hide them.
_JITTER = (brightness, contrast, saturation, hue)

KerasFactor = float | tuple[float, float]


def from_keras_factor(
    *,
    brightness: KerasFactor = 0.0,
    contrast: KerasFactor = 0.0,
    saturation: KerasFactor = (0.5, 0.5),
    hue: KerasFactor = 0.0,
) -> dict[str, tuple[float, float]]:
    """Return the options of `color_jitter` that stand for the factors of KerasCV 0.9's RandomColorJitter.

    The ranges are KerasCV's. Inside them the strength is uniform, where KerasCV's saturation is uniform in its factor.

    Args:
      brightness: f stands for (-f, f), as parts of the full range.
      contrast: f stands for (f, f); (a, b) multiplies by 1 - a to 1 + b.
      saturation: f stands for (0, f); a factor multiplies by f / (1 - f): 0 takes all color away, 0.5 changes nothing
        (which is what (0.5, 0.5) always draws), 1 would be infinite.
      hue: f stands for (0, f); turns by a factor of half the circle, either way with equal chances.

    Raises:
      UsageError: a saturation that is not in [0, 1), or hues that start above 0, which are two ranges.
    """
    brightness_low, brightness_high = brightness if isinstance(brightness, tuple) else (-brightness, brightness)
    lower, upper = contrast if isinstance(contrast, tuple) else (contrast, contrast)
    least, most = saturation if isinstance(saturation, tuple) else (0.0, saturation)
    smallest_turn, largest_turn = hue if isinstance(hue, tuple) else (0.0, hue)
    if not 0 <= least <= most < 1:
        raise UsageError(f"saturation={saturation}: KerasCV's factors lie in 0..1, and 1 is infinite; stay below it")
    if smallest_turn != 0:
        raise UsageError(f"hue={hue}: KerasCV turns either way by at least {smallest_turn}, two ranges; start at 0")
    return {
        "brightness": (brightness_low, brightness_high),
        "contrast": (-lower, upper),
        "saturation": (least / (1 - least) - 1, most / (1 - most) - 1),
        "hue": (-largest_turn / 2, largest_turn / 2),
    }
