"""Color operations against NumPy, colorsys and Pillow, and their draws."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from bloodcell_jax import augment
from bloodcell_jax.augment.color import (
    channel_shift,
    color_degeneration,
    color_jitter,
    from_keras_factor,
    gamma,
)
from bloodcell_jax.errors import UsageError

LEVELS = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
IMAGE = LEVELS.astype(np.float32) / 255
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 4000)


def assert_uniform(drawn, low, high):
    assert low <= drawn.min()
    assert drawn.max() <= high
    counts, _ = np.histogram(drawn, bins=8, range=(low, high))
    # Standard deviation of a count of 500: 21.
    assert abs(counts - len(drawn) / 8).max() < 110 * np.sqrt(len(drawn) / 4000)


COLOR = {
    "brightness": augment.brightness,
    "contrast": augment.contrast,
    "saturation": augment.saturation,
    "hue": augment.hue,
}


def in_hsv(change):
    """Return a reference that changes each pixel's hue, saturation and value."""

    def apply(image, strength):
        pixels = [
            colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel), strength)) for pixel in image.reshape(-1, 3)
        ]
        return np.array(pixels).reshape(image.shape)

    return apply


REFERENCES = {
    "brightness": lambda image, strength: image + strength,
    "contrast": lambda image, strength: image.mean((0, 1)) + (1 + strength) * (image - image.mean((0, 1))),
    "saturation": in_hsv(lambda h, s, v, strength: (h, min(1, s * (1 + strength)), v)),
    "hue": in_hsv(lambda h, s, v, strength: ((h + strength) % 1, s, v)),
}


@pytest.mark.parametrize("strength", [-0.4, -0.05, 0.1, 0.45])
@pytest.mark.parametrize("name", COLOR)
def test_a_color_operation_is_its_definition(name, strength):
    # A range of one value draws that value.
    found = COLOR[name](KEY, IMAGE, delta=(strength, strength))
    expected = np.clip(REFERENCES[name](IMAGE.astype(np.float64), strength), 0, 1)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("name", COLOR)
def test_strength_0_changes_nothing_and_a_strength_may_be_traced(name):
    np.testing.assert_allclose(COLOR[name](KEY, IMAGE, delta=0.0), IMAGE, atol=1e-6)
    traced = jax.jit(lambda delta: COLOR[name](KEY, IMAGE, delta=delta))(0.3)
    np.testing.assert_allclose(traced, COLOR[name](KEY, IMAGE, delta=0.3), atol=1e-5)


def test_the_strength_is_uniform_and_each_key_draws_its_own():
    gray = jnp.full((1, 1, 3), 0.5)
    drawn = jax.vmap(lambda key: augment.brightness(key, gray, delta=0.2))(KEYS)[:, 0, 0, 0] - 0.5
    assert_uniform(np.asarray(drawn), -0.2 - 1e-6, 0.2 + 1e-6)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_gray_black_and_white_have_no_color_to_change(value):
    flat = np.full((4, 4, 3), value, np.float32)
    for name in ("contrast", "saturation", "hue"):
        np.testing.assert_allclose(COLOR[name](KEY, flat, delta=0.5), flat, atol=1e-6)


@pytest.mark.parametrize("strength", [-0.7, 0.4])
def test_gamma_is_a_power(strength):
    expected = IMAGE.astype(np.float64) ** np.exp(strength)
    np.testing.assert_allclose(gamma(KEY, IMAGE, delta=(strength, strength)), expected, atol=1e-6)


def test_what_gamma_draws():
    gray = jnp.full((1, 1, 1), 0.5)
    out = np.asarray(jax.vmap(lambda key: gamma(key, gray, delta=0.4))(KEYS)).ravel()
    assert_uniform(np.log(np.log(out) / np.log(0.5)), -0.4 - 1e-5, 0.4 + 1e-5)


def test_each_channel_is_shifted_by_a_number_of_its_own():
    gray = jnp.full((2, 3, 3), 0.5)
    shifts = np.asarray(jax.vmap(lambda key: channel_shift(key, gray, delta=0.2))(KEYS)) - 0.5
    assert (shifts == shifts[:, :1, :1]).all()
    for channel in range(3):
        assert_uniform(shifts[:, 0, 0, channel], -0.2 - 1e-6, 0.2 + 1e-6)
    correlations = np.corrcoef(shifts[:, 0, 0].T)[np.triu_indices(3, 1)]
    assert abs(correlations).max() < 0.08, "independent: standard deviation 0.016"


@pytest.mark.parametrize("factor", [0.3, 1.0])
def test_color_degeneration_is_pillow_s(factor):
    expected = np.asarray(ImageEnhance.Color(Image.fromarray(LEVELS)).enhance(1 - factor), np.float32) / 255
    # Pillow rounds the gray image and truncates the blend.
    np.testing.assert_allclose(color_degeneration(KEY, IMAGE, factor=(factor, factor)), expected, atol=1.5 / 255)


def test_color_degeneration_only_takes_color_away():
    red = jnp.array([1.0, 0, 0])[None, None]
    out = np.asarray(jax.vmap(lambda key: color_degeneration(key, red, factor=0.6))(KEYS))[:, 0, 0]
    assert_uniform(1 - (out[:, 0] - out[:, 1]), -1e-6, 0.6 + 1e-6)


def test_color_jitter_is_its_four_operations_in_order():
    strengths = {"brightness": 0.3, "contrast": 0.5, "saturation": -0.4, "hue": 0.15}

    def turn(pixel):
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb((h + strengths["hue"]) % 1, s * (1 + strengths["saturation"]), v)

    # Clipping after each step makes the order matter.
    brighter = np.clip(IMAGE.astype(np.float64) + strengths["brightness"], 0, 1)
    mean = brighter.mean((0, 1))
    contrasted = np.clip(mean + (1 + strengths["contrast"]) * (brighter - mean), 0, 1)
    expected = np.array([turn(pixel) for pixel in contrasted.reshape(-1, 3)]).reshape(IMAGE.shape)
    found = color_jitter(KEY, IMAGE, **{name: (value, value) for name, value in strengths.items()})
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_zero_strength_changes_nothing():
    for operation in (gamma, channel_shift):
        np.testing.assert_allclose(operation(KEY, IMAGE, delta=0.0), IMAGE, atol=1e-6)
    np.testing.assert_allclose(color_degeneration(KEY, IMAGE, factor=0.0), IMAGE, atol=1e-6)
    still = color_jitter(KEY, IMAGE, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    np.testing.assert_allclose(still, IMAGE, atol=1e-6)


def test_jitter_rounds_once():
    # Four roundings to bfloat16 (2^-9 near 1) would be up to three apart from this one.
    precise = color_jitter(KEY, jnp.asarray(IMAGE, jnp.bfloat16).astype(jnp.float32))
    rounded = color_jitter(KEY, jnp.asarray(IMAGE, jnp.bfloat16))
    np.testing.assert_array_equal(rounded, precise.astype(jnp.bfloat16))


def test_factors_of_keras():
    assert from_keras_factor() == dict.fromkeys(["brightness", "contrast", "saturation", "hue"], (0, 0))
    options = from_keras_factor(brightness=0.1, contrast=0.2, saturation=0.5, hue=0.3)
    assert options == {
        "brightness": (-0.1, 0.1),
        "contrast": (-0.2, 0.2),
        "saturation": (-1, 0),  # A number only desaturates.
        "hue": (-0.15, 0.15),
    }
    options = from_keras_factor(brightness=(0, 0.3), contrast=(0.2, 0.4), saturation=(0.25, 0.75), hue=(0.0, 1.0))
    assert options["brightness"] == (0, 0.3)
    assert options["contrast"] == (-0.2, 0.4)
    np.testing.assert_allclose(options["saturation"], (1 / 3 - 1, 3 - 1))
    assert options["hue"] == (-0.5, 0.5)
    np.testing.assert_allclose(color_jitter(KEY, IMAGE, **from_keras_factor()), IMAGE, atol=1e-6)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"saturation": 1.0}, r"saturation=1\.0"),
        ({"saturation": (0.6, 0.4)}, r"saturation=\(0\.6, 0\.4\)"),
        ({"hue": (0.1, 0.2)}, r"hue=\(0\.1, 0\.2\).* 0\.1"),
    ],
)
def test_factors_of_keras_that_have_no_range(factors, message):
    with pytest.raises(UsageError, match=message):
        from_keras_factor(**factors)
