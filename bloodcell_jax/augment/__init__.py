"""Augmentation on the device, drawn per image.

An operation is `operation(key, image, *, ...)`: `key` first where it draws, one image [h, w, c] of floats in [0, 1],
options by keyword. It keeps dtype, shape and range, runs under jit and vmap, and its strengths may be traced.
`apply_policy` runs a policy string's operations on a batch.
"""

from bloodcell_jax.augment.colour import brightness, contrast, hue, saturation
from bloodcell_jax.augment.geometry import d4
from bloodcell_jax.augment.policies import Policy, apply_policy, parse_policy

__all__ = [
    "Policy",
    "apply_policy",
    "brightness",
    "contrast",
    "d4",
    "hue",
    "parse_policy",
    "saturation",
]
