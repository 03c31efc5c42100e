"""Chains of strong distortions: each image goes through its own random chain of different distortions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bloodcell_jax.augment import color, compression, enhance, filters, geometry, levels, masks
from bloodcell_jax.augment.pixels import Scalar

# One image [h, w, 3] at a strength from 0 to 1, which may be traced.
Distortion = Callable[[jax.Array, jax.Array, Scalar], jax.Array]


def _either(strength: Scalar, largest: float) -> tuple[Scalar, Scalar]:
    return -largest * strength, largest * strength


def _turn(key: jax.Array, image: jax.Array, s: Scalar) -> jax.Array:
    return geometry.affine(key, image, degrees=180.0, shear=_either(s, 0.3))


def _move(key: jax.Array, image: jax.Array, s: Scalar) -> jax.Array:
    return geometry.affine(key, image, degrees=0.0, translate=_either(s, 0.3), zoom=_either(s, 0.4))


def _blur(key: jax.Array, image: jax.Array, s: Scalar) -> jax.Array:
    side = len(image)
    return filters.blur(image, s * side / 32, radius=-(-3 * side // 32))


def _sharpen_or_smooth(key: jax.Array, image: jax.Array, s: Scalar) -> jax.Array:
    return enhance.sharpness(image, factor=1 + jnp.where(jax.random.bernoulli(key), 6, -1) * s)


# What a chain is made of, by name. A new one changes every chain, so it is a new version of the suite.
DISTORTIONS: dict[str, Distortion] = {
    "turn": _turn,
    "move": _move,
    "brightness": lambda key, image, s: color.brightness(key, image, delta=_either(s, 0.4)),
    "contrast": lambda key, image, s: color.contrast(key, image, delta=_either(s, 0.7)),
    "saturation": lambda key, image, s: color.saturation(key, image, delta=_either(s, 0.9)),
    "hue": lambda key, image, s: color.hue(key, image, delta=_either(s, 0.15)),
    "channel_shift": lambda key, image, s: color.channel_shift(key, image, delta=_either(s, 0.25)),
    "gray": lambda key, image, s: color.color_degeneration(key, image, factor=(0.0 * s, s)),
    "solarize": lambda key, image, s: levels.solarize(image, threshold=1 - 0.6 * s),
    "posterize": lambda key, image, s: levels.posterize(image, bits=8 - 6 * s),
    "equalize": lambda key, image, s: levels.equalize(image),
    "blur": _blur,
    "sharpness": _sharpen_or_smooth,
    "noise": lambda key, image, s: filters.gaussian_noise(key, image, sigma=(0.0 * s, 0.25 * s)),
    "jpeg": lambda key, image, s: compression.compress(image, 50 - 45 * s),
    "grid_mask": lambda key, image, s: masks.grid_mask(key, image, ratio=(0.0 * s, 0.6 * s), fill="black"),
    "cutout": lambda key, image, s: masks.cutout(key, image, size=(0.0 * s, 0.6 * s), fill="black"),
}


def chain(key: jax.Array, image: jax.Array, links: Scalar, strength: Scalar) -> jax.Array:
    """Send an image through `links` different distortions in random order, each at up to `strength`.

    Args:
      key: random key of this image, for the choice, the order and each distortion's own draws.
      image: [h, w, 3] with h = w.
      links: number of distortions, at most 3.
      strength: 0 to 1; a distortion draws its own from around it, as a training operation does.
    """
    order_key, link_key = jax.random.split(key)
    order = jax.random.permutation(order_key, len(DISTORTIONS))
    branches = list(DISTORTIONS.values())

    def apply_link(number: int, image: jax.Array) -> jax.Array:
        return jax.lax.switch(order[number], branches, jax.random.fold_in(link_key, number), image, strength)

    return jax.lax.fori_loop(0, jnp.asarray(links, jnp.int32), apply_link, image)
