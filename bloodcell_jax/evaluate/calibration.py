"""Whether a model is right as often as its confidence says."""

import numpy as np

CALIBRATION_BINS = 15
# Draws of what chance does: their 95 % quantile then is known to about 5 % of itself.
_DRAWS = 200


def reliability(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort predictions into equal-width bins (lower, upper] of confidence.

    Returns:
      The count, summed confidence and number correct of every bin, [CALIBRATION_BINS] each.
    """
    bins = _bins_of(confidence)
    count, summed_confidence, hits = (
        np.bincount(bins, weights, CALIBRATION_BINS) for weights in (None, confidence, correct)
    )
    return count, summed_confidence, hits


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Return the gap between confidence and accuracy, averaged over examples (Guo et al. 2017, eq. 3)."""
    _, summed_confidence, hits = reliability(confidence, correct)
    return float(np.abs(summed_confidence - hits).sum() / len(confidence))


def negative_log_likelihood(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean of -log p(label), p clipped at float64's epsilon: one example costs at most 36.04."""
    likelihood = np.take_along_axis(probabilities, labels[:, None], axis=1)
    return float(np.mean(np.log(1 / np.clip(likelihood, np.finfo(np.float64).eps, 1))))


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the squared distance to the one-hot label, summed over classes, averaged over examples."""
    one_hot = labels[:, None] == np.arange(probabilities.shape[1])
    return float(np.mean(np.sum((probabilities - one_hot) ** 2, axis=1)))


def calibration_error_by_chance(confidence: np.ndarray, *, seed: int = 0) -> float:
    """Return the expected calibration error that a perfectly calibrated model exceeds in one of twenty samples.

    Few examples show an error even then. Consistency resampling draws which answers are correct from the confidence
    itself (J. Bröcker and L. Smith, Increasing the reliability of reliability diagrams, Weather and Forecasting 22
    (2007) 651).
    """
    rng, bins, count = np.random.default_rng(seed), _bins_of(confidence), len(confidence)
    summed = np.bincount(bins, confidence, CALIBRATION_BINS)
    hits = (np.bincount(bins, rng.random(count) < confidence, CALIBRATION_BINS) for _ in range(_DRAWS))
    return float(np.quantile([np.abs(summed - drawn).sum() / count for drawn in hits], 0.95))


def _bins_of(confidence: np.ndarray) -> np.ndarray:
    inner_edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    return np.digitize(confidence, inner_edges, right=True)
