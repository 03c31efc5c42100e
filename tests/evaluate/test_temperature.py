"""The temperature is the one of lowest loss, and changes confidence alone."""

import numpy as np
import pytest
from scipy.special import softmax as peer_softmax

from bloodcell_jax.evaluate.calibration import calibration_error_by_chance, expected_calibration_error
from bloodcell_jax.evaluate.temperature import HIGHEST, LOWEST, fit_temperature, softmax, without_temperature


def examples(seed, true_temperature, count=4000, classes=5):
    """Return float32 logits that are calibrated at a temperature, and labels drawn from their probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, classes)) + 3 * np.eye(classes)[rng.integers(classes, size=count)]
    chances = peer_softmax(logits, axis=1).cumsum(axis=1)
    labels = (rng.random((count, 1)) > chances[:, :-1]).sum(axis=1)
    return (true_temperature * logits).astype(np.float32), labels


def loss_at(temperature, logits, labels):
    probabilities = peer_softmax(logits.astype(np.float64) / temperature, axis=1)
    return -np.log(probabilities[np.arange(len(labels)), labels]).mean()


@pytest.mark.parametrize("true_temperature", [0.4, 1.0, 3.0])
def test_it_is_the_best_of_a_dense_grid_and_finds_the_true_one(true_temperature):
    logits, labels = examples(0, true_temperature)
    found = fit_temperature(logits, labels)
    grid = np.geomspace(LOWEST, HIGHEST, 601)
    losses = [loss_at(temperature, logits, labels) for temperature in grid]
    best = grid[np.argmin(losses)]
    assert found == pytest.approx(best, rel=0.01)  # a step of the grid
    assert loss_at(found, logits, labels) <= min(losses) + 1e-9
    assert found == pytest.approx(true_temperature, rel=0.1)


@pytest.mark.parity
def test_it_is_the_one_that_torch_finds_by_gradients():
    torch = pytest.importorskip("torch")
    logits, labels = examples(1, 2.0)
    log_temperature = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, tolerance_grad=1e-12)
    inputs, targets = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(inputs / log_temperature.exp(), targets)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit_temperature(logits, labels) == pytest.approx(log_temperature.exp().item(), abs=1e-4)


def test_overconfident_answers_become_calibrated():
    logits, labels = examples(2, 3.0)
    held_out, held_out_labels = examples(3, 3.0)
    temperature = fit_temperature(logits, labels)

    def error(temperature):
        probabilities = softmax(held_out, temperature)
        return expected_calibration_error(probabilities.max(1), probabilities.argmax(1) == held_out_labels)

    assert error(1.0) > 0.1
    assert error(temperature) < calibration_error_by_chance(softmax(held_out, temperature).max(1))


def test_answers_never_change():
    logits = np.random.default_rng(4).normal(0, 3, (5000, 8)).astype(np.float32)
    logits[:100, 1] = np.nextafter(logits[:100, 0], np.float32(np.inf))
    for temperature in (LOWEST, 0.6574, 1.0, HIGHEST):
        probabilities = softmax(logits, temperature)
        np.testing.assert_array_equal(probabilities.argmax(1), logits.argmax(1))
        np.testing.assert_allclose(probabilities, peer_softmax(logits.astype(np.float64) / temperature, axis=1), 1e-12)
        np.testing.assert_allclose(without_temperature(probabilities, temperature), softmax(logits), 1e-9, 1e-15)


def test_the_search_is_bounded_and_without_an_error_there_is_no_answer():
    logits, labels = examples(5, 1.0)
    assert fit_temperature(logits, logits.argmax(axis=1)) is None
    assert fit_temperature(1e4 * logits, labels) == HIGHEST
    assert fit_temperature(1e-4 * logits, labels) == LOWEST


def test_logits_that_are_not_finite_give_no_probabilities():
    probabilities = softmax(np.array([[np.nan, 1.0], [np.inf, 1.0], [1.0, 2.0]]))
    assert np.isfinite(probabilities).all(axis=1).tolist() == [False, False, True]
