"""What is said of confidence, in numbers and in words."""

import numpy as np
import pytest

from bloodcell_jax.evaluate.answers import Answers
from bloodcell_jax.evaluate.calibration import calibration_error_by_chance, expected_calibration_error
from bloodcell_jax.evaluate.confidence import confidence_scores, confidence_sentence, unknown_sentence
from bloodcell_jax.evaluate.metrics import classification_metrics

NAMES = ("a", "b", "c")


def scored(accuracy, confidence, count=2000):
    """Return the scores of answers of some confidence, of which a share is right."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=count)
    said = np.where(rng.random(count) < accuracy, labels, (labels + 1) % 3)
    confidence = np.broadcast_to(confidence, count)
    probabilities = np.full((count, 3), 1.0) * ((1 - confidence) / 2)[:, None]
    probabilities[np.arange(count), said] = confidence
    scores = confidence_scores(labels, Answers(probabilities), None, holds_val=False)
    return classification_metrics(labels, probabilities, NAMES) | scores


def test_an_error_by_chance_is_what_calibrated_answers_exceed_one_time_in_twenty():
    confidence = np.random.default_rng(1).beta(6, 1, 300)
    limit = calibration_error_by_chance(confidence)
    rng = np.random.default_rng(2)
    above = [expected_calibration_error(confidence, rng.random(300) < confidence) > limit for _ in range(1000)]
    assert np.mean(above) == pytest.approx(0.05, abs=0.035)
    assert calibration_error_by_chance(np.repeat(confidence, 100)) < limit / 5


def test_another_laboratory_is_told_how_far_off_the_confidence_is():
    scores = scored(accuracy=0.7, confidence=0.9)
    off = 100 * (0.9 - scores["accuracy"])
    sentence = confidence_sentence(scores | {"calibration": {"ece": 0.02, "holds_val": False}})
    assert f" {off:.0f} points too high (ECE {off / 100:.2f}; 0.02 on val): do not read it as a probability" in sentence
    on_val = confidence_sentence(scores | {"calibration": {"ece": 0.02, "holds_val": True}}, "val")
    assert on_val.startswith("On val ")
    assert "0.02" not in on_val
    assert "points too low" in confidence_sentence(scored(accuracy=0.9, confidence=0.6))
    both_ways = np.where(np.arange(2000) % 2, 0.99, 0.51)
    assert "too high for some answers and too low for others" in confidence_sentence(scored(0.75, both_ways))


@pytest.mark.parametrize(("count", "told_little"), [(2000, False), (30, True)])
def test_where_it_agrees_that_is_said_and_on_how_few(count, told_little):
    sentence = confidence_sentence(scored(accuracy=0.9, confidence=0.9, count=count))
    assert "agrees" in sentence
    assert "do not" not in sentence
    assert (f"as far as {count} images" in sentence) == told_little


def test_a_model_without_a_reference_says_nothing_of_unknown_images():
    scores = scored(0.9, 0.9, 50)
    assert scores["temperature"] == 1.0
    assert scores["calibration"] is scores["kept"] is scores["out_of_distribution"] is None
    assert unknown_sentence(scores) is None
    assert scores["before_temperature"]["ece"] == pytest.approx(scores["ece"])
