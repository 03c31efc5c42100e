"""Operations against independent references: numpy, and colorsys pixel by pixel."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax import augment
from bloodcell_jax.errors import UsageError

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
def test_colour_operations_keep_dtype_shape_and_range(name):
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        found = COLOUR[name](KEY, jnp.asarray(IMAGE, dtype), delta=0.5)
        assert (found.dtype, found.shape) == (dtype, IMAGE.shape)
        assert (found >= 0).all()
        assert (found <= 1).all()
    np.testing.assert_allclose(COLOUR[name](KEY, IMAGE, delta=0.0), IMAGE, atol=1e-6)
    # The strength may be traced.
    traced = jax.jit(lambda delta: COLOUR[name](KEY, IMAGE, delta=delta))(0.3)
    np.testing.assert_allclose(traced, COLOUR[name](KEY, IMAGE, delta=0.3), atol=1e-5)
    with pytest.raises(UsageError, match="divide pictures of uint8 by 255"):
        COLOUR[name](KEY, np.zeros((4, 4, 3), np.uint8))


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


def symmetries(image):
    turned = [np.rot90(image, k) for k in range(4)]
    return turned + [np.fliplr(other) for other in turned]


def test_d4_is_the_eight_symmetries_each_as_likely():
    expected = symmetries(IMAGE)
    assert len({other.tobytes() for other in expected}) == 8
    keys = jax.random.split(KEY, 4000)
    found = np.asarray(jax.jit(jax.vmap(augment.d4, (0, None)))(keys, IMAGE))
    counts = [sum(np.array_equal(other, one) for one in found) for other in expected]
    assert sum(counts) == 4000, "nothing else comes out"
    assert max(abs(count - 500) for count in counts) < 110


def test_d4_wants_a_square():
    with pytest.raises(UsageError, match="6x5 pixels is not square"):
        augment.d4(KEY, jnp.zeros((5, 6, 3))[:, ::1].swapaxes(0, 1))
