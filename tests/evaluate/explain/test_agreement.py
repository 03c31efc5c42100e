"""The rank agreement of two maps."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from bloodcell_jax.evaluate.explain.agreement import area_mean, rank_agreement


def test_a_coarser_map_holds_the_means_over_areas():
    values = np.random.default_rng(0).normal(size=(8, 8))
    np.testing.assert_allclose(area_mean(values, (4, 2)), values.reshape(4, 2, 2, 4).mean(axis=(1, 3)))
    # A third of eight cells is 2 2/3 of them.
    rows = np.array([[1, 1, 2 / 3, 0, 0, 0, 0, 0], [0, 0, 1 / 3, 1, 1, 1 / 3, 0, 0], [0, 0, 0, 0, 0, 2 / 3, 1, 1]])
    np.testing.assert_allclose(area_mean(values, (3, 3)), rows @ values @ rows.T / (8 / 3) ** 2)


def test_maps_of_the_same_order_agree_and_of_the_opposite_do_not():
    order = np.random.default_rng(0).permutation(16).reshape(4, 4).astype(float)
    fine = np.kron(np.exp(order), np.ones((2, 2)))
    assert rank_agreement(order, fine) == pytest.approx(1)
    assert rank_agreement(-order, fine) == pytest.approx(-1)


def test_it_is_spearman_s_correlation_with_ties_too():
    rng = np.random.default_rng(0)
    grad_cam, occlusion = rng.integers(0, 4, (4, 4)).astype(float), rng.normal(size=(8, 8))
    expected = spearmanr(grad_cam.ravel(), occlusion.reshape(4, 2, 4, 2).mean(axis=(1, 3)).ravel()).statistic
    assert rank_agreement(grad_cam, occlusion) == pytest.approx(expected)


@pytest.mark.parametrize("grad_cam", [np.ones((1, 1)), np.zeros((3, 3))])
def test_a_map_without_an_order_agrees_with_nothing(grad_cam):
    assert rank_agreement(grad_cam, np.arange(64.0).reshape(8, 8)) is None
