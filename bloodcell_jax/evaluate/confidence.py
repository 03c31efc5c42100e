"""What `metrics.json` says of confidence: before and after the temperature, what is kept, what is not known."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bloodcell_jax.evaluate.answers import Answers
from bloodcell_jax.evaluate.calibration import (
    brier_score,
    calibration_error_by_chance,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
)
from bloodcell_jax.evaluate.metrics import Scores
from bloodcell_jax.evaluate.risk_coverage import area_under_curve, curve, kept_at
from bloodcell_jax.evaluate.temperature import without_temperature
from bloodcell_jax.weights.calibration import OOD_SCORES, Calibration

# A confidence that is wrong by less on average misleads nobody.
_TOLERATED = 0.05


def confidence_scores(
    labels: np.ndarray, answers: Answers, calibration: Calibration | None, *, holds_val: bool
) -> Scores:
    """Return what `metrics.json` holds of confidence, as plain Python numbers.

    Args:
      labels: integers in [0, k), [n].
      answers: of the model, to the same examples.
      calibration: of the model; None: temperature 1, and nothing else was asked.
      holds_val: some of the examples are those that the calibration was fitted on.
    """
    probabilities, temperature = answers.probabilities, calibration.temperature if calibration else 1.0
    before = without_temperature(probabilities, temperature)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    return {
        "temperature": temperature,
        "calibration": _fitted(calibration, holds_val=holds_val),
        "before_temperature": {
            "nll": negative_log_likelihood(labels, before),
            "ece": expected_calibration_error(before.max(axis=1), correct),
            "brier": brier_score(labels, before),
            "reliability": reliability_bins(before.max(axis=1), correct),
        },
        "reliability": reliability_bins(confidence, correct),
        "mean_confidence": float(confidence.mean()),
        "ece_by_chance": calibration_error_by_chance(confidence),
        "risk_coverage": _risk_coverage(confidence, correct),
        "kept": _kept(calibration, confidence, correct),
        "out_of_distribution": _out_of_distribution(answers, correct),
    }


def _fitted(calibration: Calibration | None, *, holds_val: bool) -> dict[str, Any] | None:
    if calibration is None:
        return None
    return {
        "fitted_on": "val",
        "examples": calibration.examples,
        "errors": calibration.errors,
        "ece": calibration.ece,
        "holds_val": holds_val,
    }


def reliability_bins(confidence: np.ndarray, correct: np.ndarray) -> dict[str, list]:
    """Return the bins of confidence: their counts, mean confidences and accuracies, null where one is empty."""
    count, summed, hits = reliability(confidence, correct)
    means = (
        [total / n if n else None for total, n in zip(totals.tolist(), count.tolist(), strict=True)]
        for totals in (summed, hits)
    )
    return dict(zip(("count", "confidence", "accuracy"), (count.astype(int).tolist(), *means), strict=True))


def _risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> dict[str, Any]:
    points = curve(confidence, correct)
    return {
        "aurc": area_under_curve(confidence, correct),
        "confidence": [point.threshold for point in points],
        "coverage": [point.coverage for point in points],
        "error": [point.error for point in points],
    }


def _kept(calibration: Calibration | None, confidence: np.ndarray, correct: np.ndarray) -> dict[str, Any] | None:
    """Return what is kept from the confidence on that val chose; null without one."""
    if calibration is None or calibration.confidence is None:
        return None
    kept = kept_at(calibration.confidence, confidence, correct)
    return {
        "wanted_error": calibration.wanted_error,
        "confidence": kept.threshold,
        "coverage": kept.coverage,
        "error": kept.error,
        "coverage_val": calibration.coverage,
    }


def _out_of_distribution(answers: Answers, correct: np.ndarray) -> dict[str, Any] | None:
    if answers.known is None or answers.scores is None:
        return None
    known = answers.known
    return {
        "refused": int((~known).sum()),
        "refused_share": float((~known).mean()),
        "accuracy_known": float(correct[known].mean()) if known.any() else None,
        # Each alone, at the 99 % quantile of val.
        "refused_share_by": dict(zip(OOD_SCORES, (answers.scores > 1).mean(axis=0).tolist(), strict=True)),
    }


def confidence_sentence(scores: Mapping[str, Any], on: str = "this source") -> str:
    """Return whether the confidence may be read as a probability on what was scored, which is called `on`."""
    ece, gap, fitted = scores["ece"], scores["mean_confidence"] - scores["accuracy"], scores["calibration"]
    errors = f"ECE {ece:.2f}"
    if fitted and not fitted["holds_val"]:
        errors += f"; {fitted['ece']:.2f} on val"
    if ece <= max(scores["ece_by_chance"], _TOLERATED):
        line = f"On {on} the confidence agrees with the accuracy ({errors})"
        tells_little = scores["ece_by_chance"] > _TOLERATED
        return f"{line}, as far as {scores['n']:,} images tell" if tells_little else line
    if abs(gap) < ece / 2:
        what = "is too high for some answers and too low for others"
    else:
        what = f"is {100 * abs(gap):.0f} points too {'high' if gap > 0 else 'low'}"
    return f"On {on} the confidence {what} ({errors}): do not read it as a probability"


def kept_sentence(scores: Mapping[str, Any]) -> str | None:
    """Return what is kept from the chosen confidence on; None if none was chosen."""
    kept = scores.get("kept")
    if kept is None:
        return None
    line = f"At confidence {kept['confidence']:g} or more the model answers {100 * kept['coverage']:.1f} % of the cells"
    return line if kept["error"] is None else f"{line} and errs on {100 * kept['error']:.1f} % of these"


def unknown_sentence(scores: Mapping[str, Any]) -> str | None:
    """Return how many images are not known; None if nobody asked."""
    found = scores.get("out_of_distribution")
    if found is None:
        return None
    line = f"{found['refused']:,} of {scores['n']:,} images ({100 * found['refused_share']:.1f} %) are not of the kind"
    return f"{line} that the model knows"
