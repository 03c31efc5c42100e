"""Muon's products of the shorter side alone: the results of optax, which multiplies whole matrices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib
import pytest

from bloodcell_jax.train.muon import as_matrix, orthogonalize, scale_by_muon

SHAPES = ((40, 160), (160, 40), (96, 96), (1, 7), (5, 1))
CONVOLUTIONS = ((3, 3, 8, 16), (2, 2, 4, 32))


def matrix(shape: tuple[int, int], *, condition: float = 10.0, seed: int = 0) -> np.ndarray:
    """Return a matrix whose singular values fall geometrically by `condition` in all."""
    rng, size = np.random.default_rng(seed), min(shape)
    left, right = (np.linalg.qr(rng.standard_normal((side, size)))[0] for side in shape)
    return (left * np.geomspace(1.0, 1.0 / condition, size)) @ right.T


def gradient(kernel: jax.Array, *, seed: int) -> jax.Array:
    found = matrix(as_matrix(kernel).shape, seed=seed)
    return jnp.asarray(found, jnp.float32).reshape(kernel.shape)


def of_optax(x: np.ndarray) -> np.ndarray:
    """Return optax's iteration in double precision, written out."""
    x = x / np.linalg.norm(x)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e5, 1e8])
def test_it_is_the_iteration_in_double_precision(shape, condition):
    x = matrix(shape, condition=condition)
    found = orthogonalize(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, of_optax(x), atol=2e-4)


@pytest.mark.parametrize("scale", [1e-4, 1e12])
def test_the_scale_of_a_matrix_does_not_count(scale):
    x = matrix((8, 24))
    np.testing.assert_allclose(orthogonalize(jnp.asarray(scale * x, jnp.float32)), of_optax(x), atol=2e-4)


def test_a_matrix_of_zeros_stays_zero_and_one_of_low_rank_finite():
    assert not np.any(orthogonalize(jnp.zeros((4, 9))))
    low = np.outer(np.arange(1.0, 65.0), np.arange(1.0, 257.0))
    np.testing.assert_allclose(orthogonalize(jnp.asarray(low, jnp.float32)), of_optax(low), atol=2e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_updates_and_state_are_those_of_optax(dtype):
    params = {f"kernel_{i}": jnp.zeros(shape) for i, shape in enumerate(SHAPES + CONVOLUTIONS)}
    ours = scale_by_muon(0.95, dtype)
    axes = {
        name: optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)
        if kernel.ndim == 4
        else optax.contrib.MuonDimensionNumbers()
        for name, kernel in params.items()
    }
    peer = optax.contrib.scale_by_muon(beta=0.95, mu_dtype=dtype, weight_dimension_numbers=axes)
    state: Any
    peer_state: Any
    state, peer_state = ours.init(params), peer.init(params)
    for step in range(3):
        gradients = {name: gradient(zeros, seed=step) for name, zeros in params.items()}
        updates, state = ours.update(gradients, state)
        expected, peer_state = peer.update(gradients, peer_state)
        for name in params:
            np.testing.assert_allclose(updates[name], expected[name], atol=5e-5)
    for name in params:
        np.testing.assert_array_equal(state.mu[name], peer_state.mu[name])
        assert state.mu[name].dtype == dtype
    assert int(state.count) == int(peer_state.count) == 3
