"""The operations on gray levels are exactly Pillow's. The enhancements are within one level of Pillow's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from bloodcell_jax import augment
from bloodcell_jax.augment.levels import _short_cases

rng = np.random.default_rng(0)


def originals():
    """Return uint8 originals [n, 24, 24, 3]: noise, narrow and wide ranges, few levels, smooth, constant."""
    noise = rng.integers(0, 256, (4, 24, 24, 3))
    narrow = rng.integers(90, 131, (4, 24, 24, 3))
    few = rng.choice([3, 77, 200, 255], (4, 24, 24, 3), p=[0.7, 0.2, 0.05, 0.05])
    smooth = (np.mgrid[:24, :24].sum(0) * np.array([2, 4, 5])[:, None, None]).transpose(1, 2, 0)[None]
    constant = np.stack([np.full((24, 24, 3), level) for level in (0, 1, 128, 255)])
    mostly = np.full((1, 24, 24, 3), 40)
    mostly[0, 3, 3] = (0, 255, 41)
    return np.concatenate([noise, narrow, few, smooth, constant, mostly]).astype(np.uint8)


IMAGES = originals()


def through_pillow(operation, originals=IMAGES):
    return np.stack([np.asarray(operation(Image.fromarray(image))) for image in originals])


def through_ours(operation, originals=IMAGES, dtype=jnp.float32):
    images = jnp.asarray(originals / np.float32(255), dtype)
    return np.asarray(jax.jit(jax.vmap(operation))(images), np.float32) * 255


LEVELS = {
    "invert": (augment.invert, ImageOps.invert),
    "autocontrast": (augment.autocontrast, ImageOps.autocontrast),
    "equalize": (augment.equalize, ImageOps.equalize),
    **{
        f"posterize to {bits}": (
            lambda image, bits=bits: augment.posterize(image, bits=bits),
            lambda image, bits=bits: ImageOps.posterize(image, bits),
        )
        for bits in range(1, 9)
    },
    **{
        f"solarize from {threshold}": (
            lambda image, t=threshold: augment.solarize(image, threshold=t / 255),
            lambda image, t=threshold: ImageOps.solarize(image, t),
        )
        for threshold in (0, 1, 77, 128, 200, 255, 256)
    },
}


@pytest.mark.parametrize("name", LEVELS)
def test_levels_are_pillow_s_exactly(name):
    ours, pillows = LEVELS[name]
    expected = through_pillow(pillows)
    found = through_ours(ours)
    np.testing.assert_allclose(found, np.round(found), atol=1e-4, err_msg="on the grid")
    np.testing.assert_array_equal(np.round(found), expected)
    # bfloat16 can represent all 256 levels, so the discontinuous operations see the same levels.
    np.testing.assert_array_equal(np.round(through_ours(ours, dtype=jnp.bfloat16)), expected)


def test_autocontrast_is_pillow_s_where_its_float64_rounds_below_a_whole_level():
    rows, masks = _short_cases()
    falls_short = masks.any(axis=1)[rows]
    low, high = np.nonzero(falls_short)
    assert len(low) == 5958
    chosen = rng.choice(len(low), 400, replace=False)
    # Each case is an image of 256 pixels with all levels between the two, repeated.
    levels = np.stack([np.resize(np.arange(low[i], high[i] + 1), 256) for i in chosen]).astype(np.uint8)
    narrow = np.repeat(levels.reshape(-1, 16, 16, 1), 3, axis=-1)
    expected = through_pillow(ImageOps.autocontrast, narrow)
    np.testing.assert_array_equal(np.round(through_ours(augment.autocontrast, narrow)), expected)


def test_solarize_add_adds_below_a_threshold_alone():
    found = through_ours(lambda image: augment.solarize_add(image, add=100 / 255, below=128 / 255))
    levels = IMAGES.astype(int)
    np.testing.assert_allclose(found, np.where(levels < 128, np.minimum(levels + 100, 255), levels), atol=1e-4)


ENHANCEMENTS = {
    "brightness": (augment.enhance_brightness, ImageEnhance.Brightness),
    "color": (augment.enhance_color, ImageEnhance.Color),
    "contrast": (augment.enhance_contrast, ImageEnhance.Contrast),
    "sharpness": (augment.sharpness, ImageEnhance.Sharpness),
}


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.55, 1.0, 1.3, 1.9])
@pytest.mark.parametrize("name", ENHANCEMENTS)
def test_enhancements_are_within_a_level_of_pillow_s(name, factor):
    ours, pillows = ENHANCEMENTS[name]
    found = through_ours(lambda image: ours(image, factor=factor))
    expected = through_pillow(lambda image: pillows(image).enhance(factor))
    assert abs(found - expected).max() <= 1 + 1e-3
    if factor == 1:
        np.testing.assert_allclose(found, IMAGES, atol=1e-3)


def test_bits_threshold_and_factor_may_be_traced_and_differ_per_image():
    images = jnp.asarray(IMAGES[:3] / np.float32(255))
    values = jnp.array([1.0, 4.0, 7.0])
    found = jax.jit(jax.vmap(lambda image, bits: augment.posterize(image, bits=bits)))(images, values)
    expected = [
        through_pillow(lambda image, b=b: ImageOps.posterize(image, b), IMAGES[i : i + 1])[0]
        for i, b in enumerate((1, 4, 7))
    ]
    np.testing.assert_allclose(np.asarray(found) * 255, np.stack(expected), atol=1e-3)
