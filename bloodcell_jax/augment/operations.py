"""The names of a policy: what each stands for, its options and their defaults."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from bloodcell_jax.augment import color, compression, enhance, filters, geometry, levels, masks, microscope, mixing
from bloodcell_jax.augment.augmix import augmix
from bloodcell_jax.augment.options import Magnitude, Number, Option, Text, Value, Word
from bloodcell_jax.augment.randaugment import parse_timm, randaugment, trivialaugment

PROBABILITY = Number(0, 1)


@dataclass(frozen=True)
class Operation:
    """What a name stands for.

    Attributes:
      function: what carries it out.
      options: its options and what they may be, besides `p`.
      defaults: of its options.
      cheap: on the device it costs no more than moving the images that go through it to a batch of their own.
    """

    function: Callable
    options: dict[str, Option]
    defaults: dict[str, Value]
    cheap: bool = False


def _operation(function: Callable, *, cheap: bool = False, **options: Option) -> Operation:
    parameters = inspect.signature(function).parameters
    return Operation(function, options, {name: parameters[name].default for name in options}, cheap)


_FILL = Word(geometry.FILLS)
_HIDE = Word(masks.FILLS)
_COMPAT = Word(("none", "kerascv"))

# `function(key, image, *, ...)`, or without a key; one image.
IMAGE_OPERATIONS = {
    "d4": _operation(geometry.d4, cheap=True),
    "affine": _operation(
        geometry.affine,
        degrees=Magnitude(180),
        shear=Magnitude(1),
        translate=Magnitude(1),
        zoom=Magnitude(0.9),
        fill=_FILL,
    ),
    "random_resized_crop": _operation(
        geometry.random_resized_crop, area=Number(0.01, 1, drawn=True), log_aspect=Magnitude(2)
    ),
    "brightness": _operation(color.brightness, cheap=True, delta=Magnitude(1)),
    "contrast": _operation(color.contrast, cheap=True, delta=Magnitude(1)),
    "saturation": _operation(color.saturation, cheap=True, delta=Magnitude(1)),
    "hue": _operation(color.hue, cheap=True, delta=Magnitude(0.5)),
    "gamma": _operation(color.gamma, cheap=True, delta=Magnitude(2)),
    "channel_shift": _operation(color.channel_shift, cheap=True, delta=Magnitude(1)),
    "color_degeneration": _operation(color.color_degeneration, cheap=True, factor=Number(0, 1, drawn=True)),
    "color_jitter": _operation(
        color.color_jitter,
        brightness=Magnitude(1),
        contrast=Magnitude(1),
        saturation=Magnitude(1),
        hue=Magnitude(0.5),
    ),
    "gaussian_blur": _operation(
        filters.gaussian_blur, sigma=Number(0, 16, drawn=True), radius=Number(1, 64, whole=True)
    ),
    "gaussian_noise": _operation(filters.gaussian_noise, sigma=Number(0, 1, drawn=True)),
    "jpeg": _operation(compression.jpeg, quality=Number(1, 100, whole=True, drawn=True)),
    "random_erasing": _operation(
        masks.random_erasing, cheap=True, area=Number(0, 1, drawn=True), log_aspect=Magnitude(3), fill=_HIDE
    ),
    "cutout": _operation(masks.cutout, cheap=True, size=Number(0, 2, drawn=True), fill=_HIDE),
    "grid_mask": _operation(
        masks.grid_mask,
        cheap=True,
        unit=Number(0.05, 2, drawn=True),
        ratio=Number(0, 1, drawn=True),
        degrees=Magnitude(180),
        fill=_HIDE,
    ),
    "stain": _operation(microscope.stain, cheap=True, scale=Magnitude(1), shift=Magnitude(1)),
    "illumination": _operation(
        microscope.illumination, cheap=True, gradient=Number(0, 1, drawn=True), vignetting=Number(0, 1, drawn=True)
    ),
    "white_balance": _operation(microscope.white_balance, cheap=True, delta=Magnitude(1)),
    "invert": _operation(levels.invert, cheap=True),
    "posterize": _operation(levels.posterize, cheap=True, bits=Number(0, 8, drawn=True)),
    "solarize": _operation(levels.solarize, cheap=True, threshold=Number(0, 1.01, drawn=True)),
    "autocontrast": _operation(levels.autocontrast),
    "equalize": _operation(levels.equalize),
    "sharpness": _operation(enhance.sharpness, factor=Number(0, 10, drawn=True)),
}

# `function(key, block_key, slots, images, *, block, ...)`; whole blocks.
BATCH_OPERATIONS = {
    "randaugment": _operation(
        randaugment,
        n=Number(1, 10, whole=True),
        m=Number(0, 30),
        preset=Word(("paper", "kerascv")),
        timm=Text(parse_timm),
        fill=_FILL,
    ),
    "trivialaugment": _operation(trivialaugment, fill=_FILL),
    "augmix": _operation(
        augmix,
        severity=Number(0.1, 10),
        width=Number(1, 10, whole=True),
        depth=Number(0, 3, whole=True),
        alpha=Number(0.01, 100),
        ops=Word(("augmix", "all")),
        compat=_COMPAT,
        fill=_FILL,
    ),
}

OPERATIONS = IMAGE_OPERATIONS | BATCH_OPERATIONS

# `function(key, image, other, *, ...) -> (image, share)`; one image and another of its block.
MIXES = {
    "mixup": _operation(mixing.mixup, alpha=Number(0.01, 100)),
    "cutmix": _operation(mixing.cutmix, alpha=Number(0.01, 100), compat=_COMPAT),
    "fmix": _operation(mixing.fmix, alpha=Number(0.01, 100), decay=Number(0, 10), compat=_COMPAT),
}
