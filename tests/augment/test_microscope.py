"""Stain, illumination and white balance against their physics, and their draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bloodcell_jax.augment.microscope import illumination, light, restain, stain, white_balance

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 2000)
IMAGE = np.random.default_rng(0).uniform(0.2, 0.6, (8, 11, 3)).astype(np.float32)

METHYLENE_BLUE = np.array([0.834750233, 0.513556283, 0.196330403])
EOSIN = np.array([0.092789, 0.954111, 0.283111])
DYES = np.array([METHYLENE_BLUE, EOSIN, np.cross(METHYLENE_BLUE, EOSIN)])
DYES /= np.linalg.norm(DYES, axis=1, keepdims=True)


def smear(amounts):
    """Return the image of amounts [..., 3] of the dyes, by the law of Lambert and Beer."""
    return 10.0 ** -(amounts @ DYES)


def test_restaining_changes_the_amounts_of_the_dyes():
    amounts = np.random.default_rng(0).uniform(0.1, 0.6, (5, 6, 3)) * [1, 1, 0.1]
    factors, summands = np.array([1.2, 0.7, 1.1]), np.array([0.03, 0.1, -0.005])
    found = restain(jnp.asarray(smear(amounts), jnp.float32), jnp.asarray(factors), jnp.asarray(summands))
    np.testing.assert_allclose(found, smear(amounts * factors + summands), atol=2e-6)


def test_what_stain_draws():
    amounts = np.array([[0.3, 0.3, 0], [0.8, 0.3, 0], [0.3, 0.8, 0]])[None]
    image = jnp.asarray(smear(amounts), jnp.float32)
    found = np.asarray(jax.jit(jax.vmap(lambda key: stain(key, image, scale=0.3, shift=0.04)))(KEYS))
    amounts = -np.log10(found[:, 0].astype(np.float64)) @ np.linalg.inv(DYES)
    blue, eosin = (amounts[:, 1, 0] - amounts[:, 0, 0]) / 0.5, (amounts[:, 2, 1] - amounts[:, 0, 1]) / 0.5
    for factors in (blue, eosin):
        assert stats.kstest(factors, stats.uniform(0.7, 0.6).cdf).pvalue > 1e-3
    for summands in (amounts[:, 0, 0] - 0.3 * blue, amounts[:, 0, 1] - 0.3 * eosin):
        assert stats.kstest(summands, stats.uniform(-0.04, 0.08).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(blue, eosin)[0, 1]) < 0.1, "independent: standard deviation 0.022"


def test_light_is_a_slope_times_a_parabola():
    height, width, direction, axis = 5, 9, 0.7, np.array([0.3, -0.4])
    found = np.asarray(light((height, width), gradient=0.2, direction=direction, vignetting=0.3, axis=axis))
    expected = np.empty((height, width))
    for row in range(height):
        for column in range(width):
            x, y = 2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1
            # y points down.
            rise = 0.2 * np.dot([np.cos(direction), np.sin(direction)], [x, -y])
            fall = 0.3 * ((x - axis[0]) ** 2 + (y - axis[1]) ** 2) / 2
            expected[row, column] = (1 + rise) * (1 - fall)
    np.testing.assert_allclose(found, expected / expected.mean(), atol=1e-6)


@pytest.mark.parametrize(("direction", "brightest"), [(0, (2, 4)), (np.pi / 2, (0, 2)), (np.pi, (2, 0))])
def test_the_light_comes_from_its_direction(direction, brightest):
    field = np.asarray(light((5, 5), gradient=0.3, direction=direction, vignetting=0.0, axis=jnp.zeros(2)))
    np.testing.assert_allclose([field[brightest], field[2, 2], field.mean()], [1.3, 1, 1], atol=1e-6)


def test_what_illumination_draws():
    gray = jnp.full((9, 9, 1), 0.5)

    @jax.jit
    @jax.vmap
    def lit(key, gradient, vignetting):
        return illumination(key, gray, gradient=gradient, vignetting=(vignetting, vignetting))

    y, x = np.mgrid[1:-1:9j, -1:1:9j]
    sloping = np.asarray(lit(KEYS, jnp.full(len(KEYS), 0.4), jnp.zeros(len(KEYS))))[..., 0] / 0.5 - 1
    slopes = [np.tensordot(sloping, axis) / (axis**2).sum() for axis in (x, y)]
    assert stats.kstest(np.hypot(*slopes), stats.uniform(0, 0.4).cdf).pvalue > 1e-3
    assert stats.kstest(np.arctan2(slopes[1], slopes[0]), stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3
    vignetted = np.asarray(lit(KEYS, jnp.zeros(len(KEYS)), jnp.full(len(KEYS), 0.3)))
    centers = vignetted.reshape(len(KEYS), -1).argmax(1)
    rows, columns = np.divmod(centers, 9)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 6, 2, 6), "the middle half"


def test_white_balance_keeps_luminance_and_changes_ratios_alone():
    found = np.asarray(jax.jit(jax.vmap(lambda key: white_balance(key, IMAGE, delta=0.2)))(KEYS))
    gains = found[:, 0, 0] / IMAGE[0, 0]
    np.testing.assert_allclose(found, gains[:, None, None] * IMAGE, atol=1e-5)
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(found.mean((1, 2)) @ luma, IMAGE.mean((0, 1)) @ luma, atol=1e-5)
    # The difference of two uniform logarithms is triangular.
    differences = np.log(gains[:, 0] / gains[:, 1])
    assert stats.kstest(differences, stats.triang(0.5, -0.4, 0.8).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    "image",
    [IMAGE, np.zeros_like(IMAGE), np.full_like(IMAGE, 0.5), np.ones_like(IMAGE)],
    ids=["colors", "black", "gray", "white"],
)
def test_zero_strength_changes_nothing(image):
    for same in (
        stain(KEY, image, scale=0.0, shift=0.0),
        illumination(KEY, image, gradient=0.0, vignetting=0.0),
        white_balance(KEY, image, delta=0.0),
    ):
        np.testing.assert_allclose(same, image, atol=2e-6)
