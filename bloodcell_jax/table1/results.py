"""The numbers of the table: scores with their intervals on clean and corrupted test images, and paired differences."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bloodcell_jax.evaluate.intervals import ci95_by_examples, ci95_by_groups
from bloodcell_jax.evaluate.metrics import METRICS, Predictions
from bloodcell_jax.evaluate.paired_tests import compare_paired
from bloodcell_jax.table1.rows import BASE, ROWS

# The columns of the report's table first.
KEYS = ("accuracy", "precision_weighted", "recall_weighted", "f1_weighted", "f1_macro", "balanced_accuracy")
CONDITIONS = ("clean", "corrupted")


def scores_of(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> dict[str, Any]:
    """Return the scores of answers, and the 95 % interval of the accuracy, which resamples images.

    Args:
      labels: int [n].
      predicted: int [n, passes]; all passes over an image are drawn together.
      num_classes: k.
    """
    passes = predicted.shape[1]
    repeated, answers = np.repeat(labels, passes), predicted.ravel()
    predictions = Predictions(repeated, np.eye(num_classes)[answers])
    if passes == 1:
        interval, _ = ci95_by_examples(predictions.confusion, 0)
    else:
        interval, _ = ci95_by_groups(repeated, answers, _images(predicted), num_classes, 0)
    scores = {metric.key: metric.compute(predictions) for metric in METRICS if metric.key in KEYS}
    return {"n": len(labels)} | {key: scores[key] for key in KEYS} | {"accuracy_ci95": interval}


def _images(predicted: np.ndarray) -> np.ndarray:
    """Return the number of the image of each answer, [n * passes]."""
    return np.repeat(np.arange(len(predicted)), predicted.shape[1])


class Question(NamedTuple):
    """What two runs of the table are compared for: does what the second has help?

    Attributes:
      about: what the second has and the first has not.
      first, second: names of runs.
    """

    about: str
    first: str
    second: str


_RAW_BASE = f"{BASE}-raw"
QUESTIONS = (
    Question("ConvNeXt and the report's augmentation, against the custom CNN without any", "cnn-raw", _RAW_BASE),
    Question("Oversampling, against undersampling", "under-augmix-randaugment-raw", _RAW_BASE),
    Question("RandAugment, against FourierMix", "over-augmix-fourier-raw", _RAW_BASE),
    Question("Everything unfrozen, with a strong chain on each image", _RAW_BASE, "full-unfreeze-raw"),
    Question("Hybrid sampling, against oversampling", _RAW_BASE, "hybrid-raw"),
    *(Question(f"Cleaned data, for: {row.title}", f"{row.name}-raw", f"{row.name}-cleaned") for row in ROWS.values()),
)


def questions_from(weights: str | None) -> tuple[Question, ...]:
    """Return the questions of a table whose rows start from some weights.

    From random weights (None) no row freezes a parameter, and the row that unfreezes everything trains for more epochs.
    """
    if weights is not None:
        return QUESTIONS
    about = "A strong chain on each image, in a training that may be longer (nothing is frozen in either)"
    return tuple(each._replace(about=about) if each.second == "full-unfreeze-raw" else each for each in QUESTIONS)


def comparisons_of(
    labels: np.ndarray, answers: Mapping[str, Mapping[str, np.ndarray]], questions: Sequence[Question] = QUESTIONS
) -> list[dict[str, Any]]:
    """Return the paired comparison of each question whose runs are both there.

    Args:
      labels: int [n].
      answers: of each run, on `clean` and `corrupted` images: int [n, passes].
      questions: in the order of the result.
    """
    return [
        question._asdict()
        | {on: _compared(labels, answers[question.first][on], answers[question.second][on]) for on in CONDITIONS}
        for question in questions
        if question.first in answers and question.second in answers
    ]


def _compared(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    right = [(predicted == labels[:, None]).ravel() for predicted in (first, second)]
    result = compare_paired(*right, groups=None if first.shape[1] == 1 else _images(first))
    assert result.interval is not None  # It is for a single image alone.
    low, high = result.interval
    verdict = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    return {"difference": result.difference, "ci95": result.interval, "verdict": verdict}
