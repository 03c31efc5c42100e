"""Calibration is measured as scikit-learn and Guo et al. define it."""

import numpy as np
import pytest
from sklearn import metrics as peer

from bloodcell_jax.evaluate.calibration import expected_calibration_error, negative_log_likelihood, reliability


def test_a_probability_of_zero_costs_log_epsilon_as_in_scikit_learn():
    labels, probabilities = np.array([1, 0]), np.array([[1.0, 0.0], [1.0, 0.0]])
    loss = negative_log_likelihood(labels, probabilities)
    assert loss == pytest.approx(-np.log(np.finfo(np.float64).eps) / 2)
    assert loss == pytest.approx(peer.log_loss(labels, probabilities))


def test_bins_of_confidence_are_closed_above():
    edges = np.arange(1, 16) / 15
    count, confidence, correct = reliability(edges, np.ones(15, bool))
    assert count.tolist() == correct.tolist() == [1] * 15
    assert confidence.tolist() == edges.tolist()
    count, _, _ = reliability(np.array([0.0, 1 / 15, np.nextafter(1 / 15, 1), 1.0]), np.zeros(4, bool))
    assert count.tolist() == [2, 1, *[0] * 12, 1]


def test_calibration_error_averages_gaps_of_bins_not_of_examples():
    # One bin: mean confidence 0.95, accuracy 0.5. Another: 0.55 and 1.
    confidence = np.array([0.94, 0.96, 0.55, 0.55])
    correct = np.array([True, False, True, True])
    assert expected_calibration_error(confidence, correct) == pytest.approx(0.5 * 0.45 + 0.5 * 0.45)
