"""What a calibrated model answers: probabilities, and whether it knows such images."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from bloodcell_jax.evaluate.evaluator import Outputs
from bloodcell_jax.evaluate.out_of_distribution import ood_score, scores_of
from bloodcell_jax.evaluate.temperature import softmax
from bloodcell_jax.weights.calibration import OOD_SCORES, Calibration


class Answers(NamedTuple):
    """Answers to images.

    Attributes:
      probabilities: float64 [n, classes], at the model's temperature.
      scores: the three of `OOD_SCORES`, scaled by val, float64 [n, 3]; None: the model is not calibrated.
      ood_score: one of all three, higher for what the model knows less, float64 [n]; None as well.
      known: whether `ood_score` is at most 1, bool [n]; None as well.
    """

    probabilities: np.ndarray
    scores: np.ndarray | None = None
    ood_score: np.ndarray | None = None
    known: np.ndarray | None = None


def answers_to(batches: Iterable[Outputs], calibration: Calibration | None, num_classes: int) -> Answers:
    """Return the answers to images from what a network says of them, batch by batch; nothing else of it is kept."""
    temperature = calibration.temperature if calibration else 1.0
    probabilities, scores = [np.zeros((0, num_classes))], [np.zeros((0, len(OOD_SCORES)))]
    for outputs in batches:
        probabilities.append(softmax(outputs.logits, temperature))
        if calibration is not None:
            scores.append(scores_of(outputs, calibration.reference))
    if calibration is None:
        return Answers(np.concatenate(probabilities))
    all_scores = np.concatenate(scores)
    score = ood_score(all_scores, calibration.reference)
    return Answers(np.concatenate(probabilities), all_scores, score, score <= 1)
