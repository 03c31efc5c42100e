"""Colour operations against independent references: numpy, and colorsys pixel by pixel."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax import augment

IMAGE = np.random.default_rng(0).random((6, 6, 3)).astype(np.float32)
KEY = jax.random.key(0)
COLOUR = {
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
@pytest.mark.parametrize("name", COLOUR)
def test_a_colour_operation_is_its_definition(name, strength):
    # A range of one value draws that value.
    found = COLOUR[name](KEY, IMAGE, delta=(strength, strength))
    expected = np.clip(REFERENCES[name](IMAGE.astype(np.float64), strength), 0, 1)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("name", COLOUR)
def test_strength_0_changes_nothing_and_a_strength_may_be_traced(name):
    np.testing.assert_allclose(COLOUR[name](KEY, IMAGE, delta=0.0), IMAGE, atol=1e-6)
    traced = jax.jit(lambda delta: COLOUR[name](KEY, IMAGE, delta=delta))(0.3)
    np.testing.assert_allclose(traced, COLOUR[name](KEY, IMAGE, delta=0.3), atol=1e-5)


def test_the_strength_is_uniform_and_each_key_draws_its_own():
    grey = jnp.full((1, 1, 3), 0.5)
    keys = jax.random.split(KEY, 4000)
    drawn = jax.vmap(lambda key: augment.brightness(key, grey, delta=0.2))(keys)[:, 0, 0, 0] - 0.5
    assert abs(drawn).max() <= 0.2 + 1e-6
    counts, _ = np.histogram(drawn, bins=8, range=(-0.2, 0.2))
    # Expected 500 in each, standard deviation 21.
    assert abs(counts - 500).max() < 110


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_grey_black_and_white_have_no_colour_to_change(value):
    flat = np.full((4, 4, 3), value, np.float32)
    for name in ("contrast", "saturation", "hue"):
        np.testing.assert_allclose(COLOUR[name](KEY, flat, delta=0.5), flat, atol=1e-6)
