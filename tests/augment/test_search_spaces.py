"""The operations that RandAugment and its kin choose from, against the published tables."""

import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax.augment import search_spaces
from bloodcell_jax.augment.search_spaces import (
    BLACK,
    CHANNEL_MEANS,
    GRAY,
    MEAN_GRAY,
    AutoContrast,
    Blend,
    Equalize,
    Identity,
    Sharpen,
    Tone,
    Warp,
)

BITS_4, ADD_55 = Tone(bits=4.0), Tone(add=55 / 255, below=128 / 255)

# The published tables at one level, with all signs positive.
SPACES = {
    "paper": (
        search_spaces.paper(),
        0.3,
        [
            Identity(),
            Warp(shear_x=0.09),
            Warp(shear_y=0.09),
            Warp(translate_x=0.1359517),
            Warp(translate_y=0.1359517),
            Warp(degrees=9.0),
            Blend(BLACK, 1.27),
            Blend(GRAY, 1.27),
            Blend(MEAN_GRAY, 1.27),
            Sharpen(1.27),
            Tone(bits=7.0),
            Tone(threshold=0.7),
            AutoContrast(),
            Equalize(),
        ],
    ),
    "trivial": (
        search_spaces.trivial_wide(),
        1.0,
        [
            Identity(),
            Warp(shear_x=0.99),
            Warp(shear_y=0.99),
            Warp(translate_x=0.1428571),
            Warp(translate_y=0.1428571),
            Warp(degrees=135.0),
            Blend(BLACK, 1.99),
            Blend(GRAY, 1.99),
            Blend(MEAN_GRAY, 1.99),
            Sharpen(1.99),
            Tone(bits=2.0),
            Tone(threshold=0.0),
            AutoContrast(),
            Equalize(),
        ],
    ),
    "timm": (
        search_spaces.timm(increasing=False),
        0.5,
        [
            Warp(degrees=15.0),
            Warp(shear_x=0.15),
            Warp(shear_y=0.15),
            Warp(translate_x=0.225),
            Warp(translate_y=0.225),
            Blend(BLACK, 1.0),
            Blend(GRAY, 1.0),
            Blend(MEAN_GRAY, 1.0),
            Sharpen(1.0),
            Tone(threshold=0.0),
            Tone(bits=2.0),
            Tone(threshold=128 / 255),
            ADD_55,
            AutoContrast(),
            Equalize(),
        ],
    ),
    "timm increasing": (
        search_spaces.timm(increasing=True),
        0.5,
        [
            Warp(degrees=15.0),
            Warp(shear_x=0.15),
            Warp(shear_y=0.15),
            Warp(translate_x=0.225),
            Warp(translate_y=0.225),
            Blend(BLACK, 1.45),
            Blend(GRAY, 1.45),
            Blend(MEAN_GRAY, 1.45),
            Sharpen(1.45),
            Tone(threshold=0.0),
            Tone(bits=2.0),
            Tone(threshold=128 / 255),
            ADD_55,
            AutoContrast(),
            Equalize(),
        ],
    ),
    "kerascv": (
        search_spaces.keras_cv(),
        0.5,
        [
            Warp(shear_x=0.5),
            Warp(shear_y=0.5),
            Warp(translate_x=0.5),
            Warp(translate_y=0.5),
            Blend(BLACK, 1.0, 0.5),
            Blend(GRAY, 0.5),
            Blend(CHANNEL_MEANS, 1.5),
            Tone(add=ADD_55.add, threshold=0.5),
            AutoContrast(),
            Equalize(),
        ],
    ),
    "augmix": (
        search_spaces.augmix(),
        0.3,
        [
            Warp(degrees=9.0),
            Warp(shear_x=0.09),
            Warp(shear_y=0.09),
            Warp(translate_x=0.1),
            Warp(translate_y=0.1),
            Tone(bits=3.0),
            Tone(threshold=180 / 255),
            AutoContrast(),
            Equalize(),
        ],
    ),
    "augmix kerascv": (
        search_spaces.augmix_keras_cv(),
        0.1,
        [
            Warp(degrees=171.887339),
            Warp(shear_x=0.03),
            Warp(shear_y=0.03),
            Warp(translate_x=0.0333333),
            Tone(bits=3.0),
            Tone(threshold=0.1),
            AutoContrast(),
            Equalize(),
        ],
    ),
}


@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_its_published_table(name):
    space, level, expected = SPACES[name]
    assert len(space) == len(expected)
    for operation, parameters in zip(space, expected, strict=True):
        found = operation(jnp.float32(level), 1.0)
        assert type(found) is type(parameters)
        np.testing.assert_allclose(found, parameters, rtol=1e-5)
        mirrored = operation(jnp.float32(level), -1.0)
        if isinstance(parameters, Warp) and "kerascv" not in name:
            np.testing.assert_allclose(mirrored, -np.array(parameters), rtol=1e-5)
