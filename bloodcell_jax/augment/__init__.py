"""Augmentation on the device. Each image draws its own random numbers.

An operation is a function `operation(key, image, *, ...)`, and only a random operation takes `key`. It takes one image
[h, w, c] of floats in [0, 1], and options by keyword. It keeps dtype, shape and range, and runs under jit and vmap.
Its strengths may be traced. `mixup`, `cutmix` and `fmix` (FMix, also called FourierMix) take a second image after the
first. They return the mixed image and the share of the first image's label. `apply_policy` applies the operations of a
policy string to a batch. `apply_mix` mixes the images of a batch and their targets.

The functions of all operations and mixes in the table of `bloodcell_jax.augment.operations` are attributes here.
"""

from typing import Any

from bloodcell_jax.augment.color import from_keras_factor
from bloodcell_jax.augment.enhance import enhance_brightness, enhance_color, enhance_contrast
from bloodcell_jax.augment.geometry import affine_matrix, warp
from bloodcell_jax.augment.levels import solarize_add
from bloodcell_jax.augment.operations import ALIASES, IMAGE_OPERATIONS, MIXES
from bloodcell_jax.augment.policies import apply_mix, apply_policy, apply_views
from bloodcell_jax.augment.policy_strings import Policy, parse_mix, parse_policy

__all__ = [
    "Policy",
    "affine_matrix",
    "apply_mix",
    "apply_policy",
    "apply_views",
    "enhance_brightness",
    "enhance_color",
    "enhance_contrast",
    "from_keras_factor",
    "parse_mix",
    "parse_policy",
    "solarize_add",
    "warp",
]
__all__ += [*IMAGE_OPERATIONS, *MIXES]

globals().update({name: operation.function for name, operation in (IMAGE_OPERATIONS | MIXES).items()})


# Type checkers also take this for the operations, which they cannot see in the table.
def __getattr__(name: str) -> Any:
    """Return the function that an earlier version gave another name."""
    if name in ALIASES:
        return globals()[ALIASES[name]]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
