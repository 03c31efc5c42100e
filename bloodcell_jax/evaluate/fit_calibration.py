"""Asking val what a trained model is worth trusting with: temperature, confidence to keep, and what it knows."""

from collections.abc import Iterable

import numpy as np

from bloodcell_jax.evaluate.calibration import expected_calibration_error
from bloodcell_jax.evaluate.evaluator import Outputs
from bloodcell_jax.evaluate.metrics import check_finite
from bloodcell_jax.evaluate.out_of_distribution import learn_reference, scaled_by_val, scores_of
from bloodcell_jax.evaluate.risk_coverage import threshold_for
from bloodcell_jax.evaluate.temperature import fit_temperature, softmax
from bloodcell_jax.weights.calibration import Calibration

# The share of wrong answers that a user may accept among those that are kept.
WANTED_ERROR = 0.01


def fit_calibration(training: Iterable[Outputs], val: Iterable[Outputs], labels: np.ndarray) -> Calibration:
    """Return what val says of a model.

    Args:
      training: outputs of the examples that `reference_examples` chose, in batches.
      val: outputs of val, in batches; only what is needed of each is kept.
      labels: of val, [n].

    Raises:
      DataError: a probability is not finite.
    """
    learned_from = Outputs(*map(np.concatenate, zip(*training, strict=True)))
    check_finite(softmax(learned_from.logits))
    reference = learn_reference(learned_from)
    parts = [(batch.logits, scores_of(batch, reference)) for batch in val]
    logits, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    check_finite(softmax(logits))
    temperature = fit_temperature(logits, labels)
    probabilities = softmax(logits, temperature or 1.0)
    confidence, correct = probabilities.max(axis=1), logits.argmax(axis=1) == labels
    kept = threshold_for(WANTED_ERROR, confidence, correct)
    return Calibration(
        examples=len(labels),
        errors=int((~correct).sum()),
        temperature=temperature or 1.0,
        ece=expected_calibration_error(confidence, correct),
        wanted_error=WANTED_ERROR,
        confidence=kept.threshold if kept else None,
        coverage=kept.coverage if kept else 0.0,
        reference=scaled_by_val(reference, scores),
    )


def described(calibration: Calibration) -> str:
    """Return a calibration as a line for the log."""
    if not calibration.errors:
        temperature = "temperature 1: without an error on val, nothing says how sure the model may be"
    else:
        temperature = f"temperature {calibration.temperature:g}, ECE on val {calibration.ece:.3f}"
    wanted = f"{100 * calibration.wanted_error:g} %"
    if calibration.confidence is None:
        kept = f"no confidence keeps an error of {wanted}"
    else:
        kept = f"an error of {wanted} is kept from confidence {calibration.confidence:g} on"
        kept += f" ({100 * calibration.coverage:.1f} % of val)"
    return f"{temperature}; {kept}"
