"""Whether a model is right as often as its confidence says."""

import numpy as np

CALIBRATION_BINS = 15


def reliability(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort predictions into equal-width bins (lower, upper] of confidence.

    Returns:
      The count, summed confidence and number correct of every bin, [CALIBRATION_BINS] each.
    """
    inner_edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    bins = np.digitize(confidence, inner_edges, right=True)
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
