"""The suites of corruptions: what each of them does to an image, at five severities, by a version and a seed.

A suite never changes: other numbers, other corruptions or other draws are another version.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax

from bloodcell_jax.augment.corruptions import camera, chains, lens, smear
from bloodcell_jax.errors import UsageError

# The side of the images for which the published suites state their pixels.
_PUBLISHED_SIDE = 224


@dataclass(frozen=True)
class Corruption:
    """A change of images, weak to strong.

    Attributes:
      name: in the results.
      function: (key, image [h, w, 3], *numbers) -> image, float32 in [0, 1].
      severities: the numbers of each severity, from 1 on.
    """

    name: str
    function: Callable[..., jax.Array]
    severities: tuple[tuple[float, ...], ...]

    @property
    def number(self) -> int:
        """What tells its draws from those of the other corruptions of a suite."""
        return zlib.crc32(self.name.encode())


@dataclass(frozen=True)
class Suite:
    """Corruptions that are scored together.

    Attributes:
      name: of the file of its results.
      version: changes with any number of it.
      seed: of all draws.
      corruptions: in the order of the results.
    """

    name: str
    version: int
    seed: int
    corruptions: tuple[Corruption, ...]

    @property
    def passes(self) -> int:
        """How often it changes every image."""
        return sum(len(corruption.severities) for corruption in self.corruptions)


def suite_of(name: str) -> Suite:
    """Return the suite of a name.

    Raises:
      UsageError: there is none; all are named.
    """
    if name not in SUITES:
        raise UsageError(f"--suite={name}: there are {', '.join(SUITES)}")
    return SUITES[name]


def _each(name: str, function: Callable[..., jax.Array], numbers: Sequence[float]) -> Corruption:
    return Corruption(name, function, tuple((number,) for number in numbers))


def _lengths(name: str, function: Callable[..., jax.Array], pixels: Sequence[tuple[float, ...]]) -> Corruption:
    """Return a corruption whose numbers are published as pixels: parts of the side, for images of any size."""
    return Corruption(name, function, tuple(tuple(each / _PUBLISHED_SIDE for each in numbers) for numbers in pixels))


# F. Di Salvo et al. 2024, MedMNIST-C (arXiv:2406.17536), bloodmnist, and its noise for other color images.
_BLOOD96_C = (
    _each("pixelate", camera.pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    _each("jpeg", camera.jpeg, (50, 30, 15, 10, 7)),
    _lengths("defocus", lens.defocus, ((2,), (3,), (4,), (5,), (6,))),
    _lengths("motion", lens.motion, ((3, 3), (5, 5), (10, 5), (10, 7), (10, 9))),
    _each("brightness_up", camera.brightness, (1.1, 1.2, 1.3, 1.35, 1.4)),
    _each("brightness_down", camera.brightness, (0.9, 0.8, 0.7, 0.6, 0.5)),
    _each("contrast_up", camera.contrast, (1.1, 1.15, 1.2, 1.25, 1.3)),
    _each("contrast_down", camera.contrast, (0.9, 0.8, 0.7, 0.6, 0.5)),
    _each("saturate", camera.saturate, (0.05, 0.1, 0.15, 0.17, 0.2)),
    _each("stain_deposit", smear.stain_deposit, (1, 2, 3, 3, 3)),
    Corruption(
        "bubble",
        smear.bubble,
        tuple((radius / _PUBLISHED_SIDE, count) for radius, count in ((5, 10), (7, 10), (10, 10), (12, 12), (15, 12))),
    ),
    _each("gaussian_noise", camera.gaussian_noise, (0.04, 0.08, 0.12, 0.18, 0.26)),
)

# D. Hendrycks and T. Dietterich, ICLR 2019 (arXiv:1903.12261), without the weather: snow, frost and fog.
_IMAGENET_C = (
    _each("gaussian_noise", camera.gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    _each("shot_noise", camera.shot_noise, (60, 25, 12, 5, 3)),
    _each("impulse_noise", camera.impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    _lengths("defocus", lens.defocus, ((3,), (4,), (6,), (8,), (10,))),
    Corruption(
        "glass",
        lens.glass,
        tuple(
            (sigma / _PUBLISHED_SIDE, distance / _PUBLISHED_SIDE, rounds)
            for sigma, distance, rounds in ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
        ),
    ),
    _lengths("motion", lens.motion, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    _each("zoom", lens.zoom, (1.11, 1.16, 1.21, 1.26, 1.31)),
    _each("brightness", camera.brightness_of_hsv, (0.1, 0.2, 0.3, 0.4, 0.5)),
    _each("contrast", camera.contrast_of_channels, (0.4, 0.3, 0.2, 0.1, 0.05)),
    Corruption(
        "elastic",
        lens.elastic,
        # Parts of the side already.
        ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    ),
    _each("pixelate", camera.pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    _each("jpeg", camera.jpeg, (25, 18, 15, 10, 7)),
)

# Number of distortions and strength.
_CHAINS = (Corruption("chain", chains.chain, ((1, 0.6), (2, 0.6), (2, 0.8), (3, 0.8), (3, 1.0))),)

SUITES = {
    suite.name: suite
    for suite in (
        Suite("blood96-c", version=1, seed=0, corruptions=_BLOOD96_C),
        Suite("imagenet-c", version=1, seed=0, corruptions=_IMAGENET_C),
        Suite("chains", version=1, seed=0, corruptions=_CHAINS),
    )
}
