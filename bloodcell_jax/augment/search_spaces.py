"""The operations that RandAugment, TrivialAugment and AugMix choose from, and the meaning of a magnitude for each.

A space is a tuple of operations. Operations that share a kernel are neighbors in it. An operation is a function
(level, sign) -> parameters of its kernel, on arrays. `level`, 0 to 1, is the magnitude. `sign` is -1 or 1.
"""

from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bloodcell_jax.augment import enhance, levels
from bloodcell_jax.augment.geometry import affine_matrix, warp
from bloodcell_jax.augment.pixels import Scalar, size_of


class Warp(NamedTuple):
    """Parameters of `affine_matrix`."""

    degrees: Scalar = 0.0
    shear_x: Scalar = 0.0
    shear_y: Scalar = 0.0
    translate_x: Scalar = 0.0
    translate_y: Scalar = 0.0


class Blend(NamedTuple):
    """Multiply the distance from one of the images DULLER by `factor`, then add `shift`."""

    duller: int | jax.Array
    factor: Scalar = 1.0
    shift: Scalar = 0.0


DULLER = (enhance.black, enhance.gray, enhance.mean_gray, enhance.channel_means)
BLACK, GRAY, MEAN_GRAY, CHANNEL_MEANS = range(4)


class Tone(NamedTuple):
    """Add `add` to values below `below`, then invert values from `threshold` on, then keep `bits`."""

    add: Scalar = 0.0
    below: Scalar = 2.0
    threshold: Scalar = 2.0
    bits: Scalar = 8.0


class Sharpen(NamedTuple):
    """Parameter of `sharpness`."""

    factor: Scalar


class AutoContrast(NamedTuple):
    """`autocontrast`, which has no parameter."""


class Equalize(NamedTuple):
    """`equalize`, which has no parameter."""


class Identity(NamedTuple):
    """No change."""


Parameters = Warp | Blend | Tone | Sharpen | AutoContrast | Equalize | Identity
SpaceOperation = Callable[[Scalar, Scalar], Parameters]
Space = tuple[SpaceOperation, ...]


def _warp(image: jax.Array, parameters: Warp, fill: str) -> jax.Array:
    return warp(image, affine_matrix(size_of(image), **parameters._asdict()), fill=fill)


def _blend(image: jax.Array, parameters: Blend, fill: str) -> jax.Array:
    duller = enhance.black(image)
    for number, make in enumerate(DULLER):
        duller = jnp.where(parameters.duller == number, make(image), duller)
    return enhance.blend(image, duller, parameters.factor, parameters.shift)


def _tone(image: jax.Array, parameters: Tone, fill: str) -> jax.Array:
    image = levels.solarize_add(image, add=parameters.add, below=parameters.below)
    return levels.posterize(levels.solarize(image, threshold=parameters.threshold), bits=parameters.bits)


def _sharpen(image: jax.Array, parameters: Sharpen, fill: str) -> jax.Array:
    return enhance.sharpness(image, factor=parameters.factor)


# The function (image, parameters, fill) -> image of each kind of parameters.
KERNELS: dict[type, Callable[..., jax.Array]] = {
    Warp: _warp,
    Blend: _blend,
    Tone: _tone,
    Sharpen: _sharpen,
    AutoContrast: lambda image, parameters, fill: levels.autocontrast(image),
    Equalize: lambda image, parameters, fill: levels.equalize(image),
}


def kernel_runs(space: Space) -> list[tuple[type, int, int]]:
    """Return (kind of parameters, first, last) of each run of operations that share a kernel."""
    kinds = [type(operation(0.5, 1.0)) for operation in space]
    runs, first = [], 0
    for kind, members in groupby(kinds):
        last = first + len(list(members)) - 1
        runs.append((kind, first, last))
        first = last + 1
    return runs


def parameters_of(operations: Space, choice: jax.Array, level: jax.Array, sign: jax.Array) -> Parameters:
    """Return the parameters of each row's operation, all of one kind, as arrays [m].

    Args:
      operations: operations that share a kernel.
      choice: index into `operations`, int32 [m].
      level: [m].
      sign: [m].
    """
    each = [operation(level, sign) for operation in operations]
    fields = zip(*each, strict=True)
    return type(each[0])(*(_select(choice, values) for values in fields))


def _select(choice: jax.Array, values: tuple) -> jax.Array:
    stacked = jnp.stack([jnp.broadcast_to(jnp.asarray(value), choice.shape) for value in values])
    return jnp.take_along_axis(stacked, choice[None], axis=0)[0]


def _steps(level: Scalar, count: int) -> jax.Array:
    """Return floor(level * count). 1e-4 keeps a whole product from falling just below itself in float32."""
    return jnp.floor(level * count + 1e-4)


def paper() -> Space:
    """Return RandAugment's 14 operations (Cubuk et al. 2019, arXiv:1909.13719, table 6), in torchvision's ranges."""
    return _fourteen(shear=0.3, translate=150 / 331, degrees=30, strength=0.9, lost_bits=4)


def trivial_wide() -> Space:
    """Return the 14 operations of TrivialAugmentWide (Müller and Hutter 2021, arXiv:2103.10158, table 2).

    The paper translates images of 224 pixels by up to 32 pixels. Here the distance is this part of the image.
    """
    return _fourteen(shear=0.99, translate=32 / 224, degrees=135, strength=0.99, lost_bits=6)


def _fourteen(*, shear: float, translate: float, degrees: float, strength: float, lost_bits: int) -> Space:
    """Return the 14 operations that both papers choose from.

    Args:
      shear, translate, degrees, strength, lost_bits: change at level 1.
    """
    return (
        lambda level, sign: Identity(),
        lambda level, sign: Warp(shear_x=sign * level * shear),
        lambda level, sign: Warp(shear_y=sign * level * shear),
        lambda level, sign: Warp(translate_x=sign * level * translate),
        lambda level, sign: Warp(translate_y=sign * level * translate),
        lambda level, sign: Warp(degrees=sign * level * degrees),
        lambda level, sign: Blend(BLACK, 1 + sign * level * strength),
        lambda level, sign: Blend(GRAY, 1 + sign * level * strength),
        lambda level, sign: Blend(MEAN_GRAY, 1 + sign * level * strength),
        lambda level, sign: Sharpen(1 + sign * level * strength),
        # A level is one of 30 steps, and the lost bits are rounded to a whole number.
        lambda level, sign: Tone(bits=8 - jnp.round(level * lost_bits)),
        lambda level, sign: Tone(threshold=1 - level),
        lambda level, sign: AutoContrast(),
        lambda level, sign: Equalize(),
    )


def timm(*, increasing: bool) -> Space:
    """Return timm's 15 operations of RandAugment. A level is timm's magnitude divided by 10.

    Args:
      increasing: a higher magnitude always changes more. This is timm's `inc1`.
    """

    def factor(level, sign):
        return jnp.maximum(0.1, 1 + sign * level * 0.9) if increasing else level * 1.8 + 0.1

    def kept_bits(level, sign):
        return 4 - _steps(level, 4) if increasing else _steps(level, 4)

    def threshold(level, sign):
        inverted = _steps(level, 256)
        return (256 - inverted if increasing else jnp.minimum(256, inverted)) / 255

    return (
        lambda level, sign: Warp(degrees=sign * level * 30),
        lambda level, sign: Warp(shear_x=sign * level * 0.3),
        lambda level, sign: Warp(shear_y=sign * level * 0.3),
        lambda level, sign: Warp(translate_x=sign * level * 0.45),
        lambda level, sign: Warp(translate_y=sign * level * 0.45),
        lambda level, sign: Blend(BLACK, factor(level, sign)),
        lambda level, sign: Blend(GRAY, factor(level, sign)),
        lambda level, sign: Blend(MEAN_GRAY, factor(level, sign)),
        lambda level, sign: Sharpen(factor(level, sign)),
        lambda level, sign: Tone(threshold=0.0),
        lambda level, sign: Tone(bits=kept_bits(level, sign)),
        lambda level, sign: Tone(threshold=threshold(level, sign)),
        lambda level, sign: Tone(add=jnp.minimum(128, _steps(level, 110)) / 255, below=128 / 255),
        lambda level, sign: AutoContrast(),
        lambda level, sign: Equalize(),
    )


def keras_cv() -> Space:
    """Return the 10 operations of KerasCV 0.9's RandAugment, which the report used, far harsher than the paper's."""
    return (
        lambda level, sign: Warp(shear_x=sign * level),
        lambda level, sign: Warp(shear_y=sign * level),
        lambda level, sign: Warp(translate_x=sign * level),
        lambda level, sign: Warp(translate_y=sign * level),
        lambda level, sign: Blend(BLACK, shift=sign * level),
        lambda level, sign: Blend(GRAY, 1 - level),
        lambda level, sign: Blend(CHANNEL_MEANS, 1 + sign * level),
        lambda level, sign: Tone(add=level * 110 / 255, threshold=1 - level),
        lambda level, sign: AutoContrast(),
        lambda level, sign: Equalize(),
    )


def augmix() -> Space:
    """Return AugMix's 9 operations (Hendrycks et al. 2019, arXiv:1912.02781), without those that ImageNet-C tests."""
    return (
        *_augmix_geometry(lambda level, sign: Warp(degrees=sign * _steps(level, 30))),
        lambda level, sign: Tone(bits=4 - _steps(level, 4)),
        lambda level, sign: Tone(threshold=(256 - _steps(level, 256)) / 255),
        lambda level, sign: AutoContrast(),
        lambda level, sign: Equalize(),
    )


def augmix_all() -> Space:
    """Return AugMix's 13 operations. Four of them overlap with the corruptions of ImageNet-C."""

    def factor(level):
        return level * 1.8 + 0.1

    return (
        *augmix(),
        lambda level, sign: Blend(BLACK, factor(level)),
        lambda level, sign: Blend(GRAY, factor(level)),
        lambda level, sign: Blend(MEAN_GRAY, factor(level)),
        lambda level, sign: Sharpen(factor(level)),
    )


def augmix_keras_cv() -> Space:
    """Return the 8 operations that KerasCV 0.9's AugMix really draws, with their faults, to replicate the report.

    `translate_y` is never drawn. Rotation takes degrees for radians and turns in one direction only. Posterize always
    keeps 3 bits. Solarize inverts nearly everything at a low severity.
    """
    return (
        *_augmix_geometry(lambda level, sign: Warp(degrees=jnp.rad2deg(level * 30)))[:-1],
        lambda level, sign: Tone(bits=3.0),
        lambda level, sign: Tone(threshold=level),
        lambda level, sign: AutoContrast(),
        lambda level, sign: Equalize(),
    )


def _augmix_geometry(rotate: SpaceOperation) -> Space:
    return (
        rotate,
        lambda level, sign: Warp(shear_x=sign * level * 0.3),
        lambda level, sign: Warp(shear_y=sign * level * 0.3),
        lambda level, sign: Warp(translate_x=sign * level / 3),
        lambda level, sign: Warp(translate_y=sign * level / 3),
    )
