"""What a model gains if it answers only where it is confident: the error of the answers that are kept.

Y. Geifman and R. El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017.
"""

from typing import NamedTuple

import numpy as np

# Points of a curve that are kept: more are invisible.
POINTS = 100
# Thresholds of confidence have four digits, as people write them down.
_STEPS = 10_000


class Kept(NamedTuple):
    """The answers whose confidence is at least `threshold`.

    Attributes:
      threshold: a confidence.
      coverage: the share of all answers that is kept.
      error: the share of wrong ones among those kept; None if none is kept.
    """

    threshold: float
    coverage: float
    error: float | None


def kept_at(threshold: float, confidence: np.ndarray, correct: np.ndarray) -> Kept:
    """Return what a threshold keeps of answers with some confidence, [n], of which some are correct, bool [n]."""
    kept = confidence >= threshold
    return Kept(threshold, float(kept.mean()), float((~correct)[kept].mean()) if kept.any() else None)


def area_under_curve(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Return the area under the risk-coverage curve: the error of what is kept, averaged over coverages 1/n to 1.

    Equal confidences are kept together, whatever their order. 0 is perfect. Confidence that says nothing has the error
    of all answers.
    """
    coverage, error = _curve(confidence, correct)[1:]
    return float(np.sum(np.diff(coverage, prepend=0) * error))


def curve(confidence: np.ndarray, correct: np.ndarray) -> list[Kept]:
    """Return at most `POINTS` points of the curve, evenly over the coverage, from the whole to the most certain."""
    threshold, coverage, error = _curve(confidence, correct)
    shown = np.unique(np.searchsorted(coverage, np.linspace(0, 1, POINTS + 1)[1:]).clip(max=len(coverage) - 1))[::-1]
    return [Kept(*map(float, point)) for point in zip(threshold[shown], coverage[shown], error[shown], strict=True)]


def threshold_for(error: float, confidence: np.ndarray, correct: np.ndarray) -> Kept | None:
    """Return the threshold that keeps most answers with at most this error; None if no threshold does."""
    # With confidences rounded down, `rounded >= threshold` and `confidence >= threshold` say the same.
    threshold, _, errors = _curve(np.floor(confidence * _STEPS) / _STEPS, correct)
    fitting = np.flatnonzero(errors <= error)
    if not len(fitting):
        return None
    return kept_at(float(threshold[fitting[-1]]), confidence, correct)


def _curve(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each distinct confidence, descending, with the coverage and the error of what it keeps."""
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    kept = last + 1
    return ordered[last], kept / len(confidence), np.cumsum(~correct[order])[last] / kept
