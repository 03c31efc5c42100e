"""What is kept from a confidence on, against counting by hand."""

import numpy as np
import pytest

from bloodcell_jax.evaluate.risk_coverage import POINTS, area_under_curve, curve, kept_at, threshold_for

CONFIDENCE = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
CORRECT = np.array([True, True, False, True, False])


def answers(count=3000, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.beta(5, 1, count)
    return confidence, rng.random(count) < confidence


def test_the_area_is_the_mean_error_over_all_coverages():
    assert area_under_curve(CONFIDENCE, CORRECT) == pytest.approx(np.mean([0, 0, 1 / 3, 1 / 4, 2 / 5]))
    confidence, correct = answers()
    order = np.argsort(-confidence)
    by_hand = np.mean(np.cumsum(~correct[order]) / np.arange(1, len(order) + 1))
    assert area_under_curve(confidence, correct) == pytest.approx(by_hand)
    # Confidence that says nothing has the error of all answers, in whatever order they stand.
    assert area_under_curve(np.full(5, 0.5), CORRECT) == pytest.approx(2 / 5)


def test_the_curve_runs_from_all_answers_to_the_most_certain():
    points = curve(CONFIDENCE, CORRECT)
    assert [point.threshold for point in points] == [0.5, 0.6, 0.7, 0.8, 0.9]
    assert points[0] == (0.5, 1.0, 2 / 5)
    confidence, correct = answers()
    points = curve(confidence, correct)
    assert len(points) == POINTS
    for point in points:
        assert point == pytest.approx(kept_at(point.threshold, confidence, correct))


@pytest.mark.parametrize("wanted", [0.0, 0.01, 0.05, 0.2])
def test_the_threshold_keeps_most_answers_with_the_wanted_error(wanted):
    confidence, correct = answers()
    found = threshold_for(wanted, confidence, correct)
    best = 0.0
    for threshold in np.arange(10_001) / 10_000:
        kept = confidence >= threshold
        if kept.any() and (~correct[kept]).mean() <= wanted:
            best = max(best, kept.mean())
    assert found.error <= wanted
    assert found.coverage == pytest.approx(best)
    assert found.threshold == round(found.threshold, 4)
    assert found == kept_at(found.threshold, confidence, correct)


def test_no_threshold_keeps_the_error_if_the_most_certain_answer_is_wrong():
    assert threshold_for(0.01, np.array([0.9, 0.8]), np.array([False, True])) is None
    assert kept_at(0.95, CONFIDENCE, CORRECT) == (0.95, 0.0, None)
