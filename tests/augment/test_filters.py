"""Blur against SciPy and noise against the normal distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from bloodcell_jax.augment.filters import blur, gaussian_blur, gaussian_noise

IMAGE = np.random.default_rng(0).random((9, 14, 3)).astype(np.float32)
KEY = jax.random.key(0)


@pytest.mark.parametrize("radius", [4, 12])
def test_blur_is_scipy_s(radius):
    # A radius of 12 pixels reaches past both borders.
    blurred = jax.jit(lambda sigma: blur(IMAGE, sigma, radius=radius))
    for sigma in (0.3, 1.0, 2.5):
        expected = ndimage.gaussian_filter(IMAGE.astype(np.float64), sigma, radius=radius, mode="nearest", axes=(0, 1))
        np.testing.assert_allclose(blurred(sigma), expected, atol=2e-6)
    for sigma in (0.0, 1e-6, 0.05):
        np.testing.assert_allclose(blurred(sigma), IMAGE, atol=1e-6)


def test_what_blur_draws():
    # The variance of a blurred point is sigma^2.
    point = jnp.zeros((1, 25, 1)).at[0, 12].set(1)
    keys = jax.random.split(KEY, 2000)
    responses = jax.jit(jax.vmap(lambda key: gaussian_blur(key, point, sigma=(1.0, 2.0), radius=12)))(keys)
    sigmas = np.sqrt(np.asarray(responses)[:, 0, :, 0] @ np.square(np.arange(25) - 12))
    assert stats.kstest(sigmas, stats.uniform(1, 1).cdf).pvalue > 1e-3
    sharp = jax.jit(jax.vmap(lambda key: gaussian_blur(key, point, sigma=1.0)))(keys)[:, 0, 12, 0]
    assert sharp.max() > 0.999, "a number is drawn from 0"
    # The middle pixel holds 0.399 of a Gaussian with sigma 1.
    assert 0.398 < sharp.min() < 0.41


def test_noise_is_normal_and_each_value_has_its_own():
    gray = jnp.full((40, 50, 3), 0.5)
    noise = np.asarray(gaussian_noise(KEY, gray, sigma=(0.08, 0.08))) - 0.5
    assert stats.kstest(noise.ravel(), stats.norm(0, 0.08).cdf).pvalue > 1e-3
    for neighbor in (noise[1:] * noise[:-1], noise[:, 1:] * noise[:, :-1], noise[..., 1:] * noise[..., :-1]):
        assert abs(neighbor.mean()) < 5 * 0.08**2 / np.sqrt(neighbor.size)


def test_what_noise_draws():
    gray = jnp.full((20, 20, 3), 0.5)
    keys = jax.random.split(KEY, 1000)
    sigmas = np.asarray(jax.jit(jax.vmap(lambda key: gaussian_noise(key, gray, sigma=0.1).std()))(keys))
    # The deviation of 1,200 values is within 2 % of sigma.
    assert stats.kstest(sigmas, stats.uniform(0, 0.1).cdf).pvalue > 1e-3
    np.testing.assert_array_equal(gaussian_noise(KEY, IMAGE, sigma=0.0), IMAGE)
