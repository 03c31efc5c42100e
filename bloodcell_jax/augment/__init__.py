"""Augmentation on the device, drawn per image.

An operation is `operation(key, image, *, ...)`: `key` first where it draws, one image [h, w, c] of floats in [0, 1],
options by keyword. It keeps dtype, shape and range, runs under jit and vmap, and its strengths may be traced. `mixup`,
`cutmix` and `fmix` take a second image after the first, and return the mixed one with the share of the first's label.
`apply_policy` runs a policy string's operations on a batch, and `apply_mix` mixes its images and targets.
"""

from bloodcell_jax.augment.color import (
    brightness,
    channel_shift,
    color_degeneration,
    color_jitter,
    contrast,
    from_keras_factor,
    gamma,
    hue,
    saturation,
)
from bloodcell_jax.augment.compression import jpeg
from bloodcell_jax.augment.enhance import enhance_brightness, enhance_color, enhance_contrast, sharpness
from bloodcell_jax.augment.filters import gaussian_blur, gaussian_noise
from bloodcell_jax.augment.geometry import affine, affine_matrix, d4, random_resized_crop, warp
from bloodcell_jax.augment.levels import autocontrast, equalize, invert, posterize, solarize, solarize_add
from bloodcell_jax.augment.masks import cutout, grid_mask, random_erasing
from bloodcell_jax.augment.microscope import illumination, stain, white_balance
from bloodcell_jax.augment.mixing import cutmix, fmix, mixup
from bloodcell_jax.augment.policies import apply_mix, apply_policy, apply_views
from bloodcell_jax.augment.policy_strings import Policy, parse_mix, parse_policy

__all__ = [
    "Policy",
    "affine",
    "affine_matrix",
    "apply_mix",
    "apply_policy",
    "apply_views",
    "autocontrast",
    "brightness",
    "channel_shift",
    "color_degeneration",
    "color_jitter",
    "contrast",
    "cutmix",
    "cutout",
    "d4",
    "enhance_brightness",
    "enhance_color",
    "enhance_contrast",
    "equalize",
    "fmix",
    "from_keras_factor",
    "gamma",
    "gaussian_blur",
    "gaussian_noise",
    "grid_mask",
    "hue",
    "illumination",
    "invert",
    "jpeg",
    "mixup",
    "parse_mix",
    "parse_policy",
    "posterize",
    "random_erasing",
    "random_resized_crop",
    "saturation",
    "sharpness",
    "solarize",
    "solarize_add",
    "stain",
    "warp",
    "white_balance",
]
