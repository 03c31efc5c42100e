"""Operations on brightness, contrast and color.

Each operation draws its strength from the key and computes in float32. It clips to [0, 1], which dm-pix does not, and
returns the image's own dtype. In bfloat16, dm-pix's conversion through HSV is off by up to 10 gray levels, its hue
returns float32, and the mean that its contrast keeps drifts.

A strength `delta` is the largest change in both directions. It is drawn uniformly from [-delta, delta), or from the
range (low, high). A strength may be traced. Strength 0 changes nothing.
"""

import dm_pix as pix
import jax
import jax.numpy as jnp

from bloodcell_jax.augment.declaration import operation
from bloodcell_jax.augment.options import Magnitude, Number
from bloodcell_jax.augment.pixels import Strength, draw, draw_amount, to_float32, to_gray, to_unit_range
from bloodcell_jax.errors import UsageError


@operation(cheap=True, delta=Magnitude(1))
def brightness(key: jax.Array, image: jax.Array, *, delta: Strength = 0.2) -> jax.Array:
    """Add one number to all values of an image.

    Args:
      key: random key of this image.
      image: [h, w, c].
      delta: strength, in units of the full range.
    """
    return to_unit_range(pix.adjust_brightness(to_float32(image), draw(key, delta)), image.dtype)


@operation(cheap=True, delta=Magnitude(1))
def contrast(key: jax.Array, image: jax.Array, *, delta: Strength = 0.2) -> jax.Array:
    """Multiply the distance of each value from the mean of its channel by 1 + the strength.

    Args:
      key: random key of this image.
      image: [h, w, c].
      delta: strength.
    """
    return to_unit_range(pix.adjust_contrast(to_float32(image), 1 + draw(key, delta)), image.dtype)


@operation(cheap=True, delta=Magnitude(1))
def saturation(key: jax.Array, image: jax.Array, *, delta: Strength = 0.2) -> jax.Array:
    """Multiply the saturation (HSV) of an image by 1 + the strength. Hue and value stay.

    Args:
      key: random key of this image.
      image: [h, w, 3].
      delta: strength.
    """
    return to_unit_range(pix.adjust_saturation(to_float32(image), 1 + draw(key, delta)), image.dtype)


@operation(cheap=True, delta=Magnitude(0.5))
def hue(key: jax.Array, image: jax.Array, *, delta: Strength = 0.02) -> jax.Array:
    """Turn the hue (HSV) of an image by a part of the color circle. Saturation and value stay.

    Args:
      key: random key of this image.
      image: [h, w, 3].
      delta: strength, as a part of the circle.
    """
    return to_unit_range(pix.adjust_hue(to_float32(image), draw(key, delta)), image.dtype)


@operation(cheap=True, delta=Magnitude(2))
def gamma(key: jax.Array, image: jax.Array, *, delta: Strength = 0.2) -> jax.Array:
    """Raise the values of an image to the power exp(strength), which darkens above 0 and brightens below 0.

    Args:
      key: random key of this image.
      image: [h, w, c].
      delta: strength, the logarithm of the power.
    """
    # dm-pix's adjust_gamma computes a power, which is 4 to 10 times as slow on the CPU.
    return to_unit_range(jnp.exp(jnp.exp(draw(key, delta)) * jnp.log(to_float32(image))), image.dtype)


@operation(cheap=True, delta=Magnitude(1))
def channel_shift(key: jax.Array, image: jax.Array, *, delta: Strength = 0.05) -> jax.Array:
    """Add a number of its own to each channel of an image.

    Args:
      key: random key of this image.
      image: [h, w, c].
      delta: strength, in units of the full range.
    """
    return to_unit_range(to_float32(image) + draw(key, delta, image.shape[-1:]), image.dtype)


@operation(cheap=True, factor=Number(0, 1, drawn=True))
def color_degeneration(key: jax.Array, image: jax.Array, *, factor: Strength = 0.5) -> jax.Array:
    """Blend an image with its gray version: `image + f * (gray - image)`.

    Args:
      key: random key of this image.
      image: [h, w, 3].
      factor: f is drawn uniformly from [0, factor), or from the range (low, high) inside 0 to 1.
    """
    pixels = to_float32(image)
    return to_unit_range(pixels + draw_amount(key, factor) * (to_gray(pixels) - pixels), image.dtype)


@operation(brightness=Magnitude(1), contrast=Magnitude(1), saturation=Magnitude(1), hue=Magnitude(0.5))
def color_jitter(
    key: jax.Array,
    image: jax.Array,
    *,
    brightness: Strength = 0.2,
    contrast: Strength = 0.2,
    saturation: Strength = 0.2,
    hue: Strength = 0.02,
) -> jax.Array:
    """Change brightness, contrast, saturation and hue of an image, in this order.

    KerasCV's RandomColorJitter has the same fixed order. `from_keras_factor` translates its factors.

    Args:
      key: random key of this image.
      image: [h, w, 3].
      brightness, contrast, saturation, hue: strengths of the operations with these names.
    """
    keys = jax.random.split(key, 4)
    # All four compute in float32. Four roundings to the image's dtype would add up.
    pixels = to_float32(image)
    for change, change_key, strength in zip(_JITTER, keys, (brightness, contrast, saturation, hue), strict=True):
        pixels = change(change_key, pixels, delta=strength)
    return pixels.astype(image.dtype)


# The options of color_jitter have the same names and hide these operations inside it.
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

    The ranges are KerasCV's. `color_jitter` draws the strength of the saturation uniformly. KerasCV draws the factor
    uniformly.

    Args:
      brightness: f stands for (-f, f), in units of the full range.
      contrast: f stands for (f, f). (a, b) multiplies by 1 - a to 1 + b.
      saturation: f stands for (0, f). A factor f multiplies by f / (1 - f): 0 takes all color away, 0.5 changes
        nothing, and 1 would be infinite. So the default (0.5, 0.5) changes nothing.
      hue: f stands for (0, f). A factor turns the hue by a part of half the circle, in both directions equally often.

    Raises:
      UsageError: the saturation is not in [0, 1), or the hue starts above 0, which would be two ranges.
    """
    brightness_low, brightness_high = brightness if isinstance(brightness, tuple) else (-brightness, brightness)
    lower, upper = contrast if isinstance(contrast, tuple) else (contrast, contrast)
    least, most = saturation if isinstance(saturation, tuple) else (0.0, saturation)
    smallest_turn, largest_turn = hue if isinstance(hue, tuple) else (0.0, hue)
    if not 0 <= least <= most < 1:
        raise UsageError(f"saturation={saturation}: choose factors of at least 0 and below 1, the lower one first")
    if smallest_turn != 0:
        raise UsageError(
            f"hue={hue}: KerasCV turns by {smallest_turn} or more in both directions, which is two ranges; start at 0"
        )
    return {
        "brightness": (brightness_low, brightness_high),
        "contrast": (-lower, upper),
        "saturation": (least / (1 - least) - 1, most / (1 - most) - 1),
        "hue": (-largest_turn / 2, largest_turn / 2),
    }
