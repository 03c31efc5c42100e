"""Scores of a classifier from its probabilities, by scikit-learn's definitions.

A class without an example has neither recall nor F1: macro F1 and balanced accuracy are means over the classes that
have examples, which `present_classes` names (scikit-learn's `labels=present, zero_division=0`). What the model says
wrongly to be of an absent class still counts as wrong, for the class that it is of.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.calibration import brier_score, expected_calibration_error, negative_log_likelihood
from bloodcell_jax.evaluate.confusion import accuracy, confusion_matrix, precision_recall_f1
from bloodcell_jax.evaluate.intervals import ci95_by_examples, ci95_by_groups, class_ci95
from bloodcell_jax.workdir.checkpoint_folders import Ranking

# The content of `metrics.json`.
Scores = dict[str, Any]


class Predictions:
    """What metrics are computed from.

    Attributes:
      labels: integers in [0, k), [n].
      probabilities: float64 [n, k].
      predicted: the first largest column of each row, [n].
      confusion: counts by true class (row) and predicted class (column), [k, k].
      precision, recall, f1: one of each per class, [k].
      support: examples of every class, [k].
      present: the classes that have examples, in order, [at most k].
      specificity: share of the other classes' examples that a class is not taken for; None if there are none, [k].
    """

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray):
        self.labels, self.probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
        self.predicted = self.probabilities.argmax(axis=1)
        self.confusion = confusion_matrix(self.labels, self.predicted, self.probabilities.shape[1])
        self.precision, self.recall, self.f1 = precision_recall_f1(self.confusion)
        self.support = self.confusion.sum(axis=1)
        self.present = np.flatnonzero(self.support)
        self.specificity = _specificity(self.confusion)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Metric:
    """One number that says how good predictions are.

    Attributes:
      key: in `metrics.json`.
      title: in the report.
      shown_as: how the report writes it.
      higher_is_better: which way is better.
      compute: from predictions to the number; None if it is not defined for them.
    """

    key: str
    title: str
    shown_as: Literal["percent", "decimal"]
    higher_is_better: bool
    compute: Callable[[Predictions], float | None]


# Every metric, in the order of `metrics.json` and of the report.
METRICS = (
    Metric("accuracy", "Accuracy", "percent", True, lambda p: accuracy(p.confusion)),
    Metric(
        "precision_weighted", "Precision, weighted", "percent", True, lambda p: _average(p.precision, weights=p.support)
    ),
    Metric("recall_weighted", "Recall, weighted", "percent", True, lambda p: _average(p.recall, weights=p.support)),
    Metric("f1_weighted", "F1, weighted", "percent", True, lambda p: _average(p.f1, weights=p.support)),
    Metric("f1_macro", "F1, macro", "percent", True, lambda p: float(p.f1[p.present].mean())),
    Metric("balanced_accuracy", "Balanced accuracy", "percent", True, lambda p: float(p.recall[p.present].mean())),
    Metric(
        "auc_macro_ovr",
        "AUC, macro, one versus rest",
        "decimal",
        True,
        lambda p: auc_macro_ovr(p.labels, p.probabilities),
    ),
    Metric(
        "nll",
        "Negative log likelihood",
        "decimal",
        False,
        lambda p: negative_log_likelihood(p.labels, p.probabilities),
    ),
    Metric(
        "ece",
        "Expected calibration error",
        "decimal",
        False,
        lambda p: expected_calibration_error(p.probabilities.max(axis=1), p.predicted == p.labels),
    ),
    Metric("brier", "Brier score", "decimal", False, lambda p: brier_score(p.labels, p.probabilities)),
)

# What training logs after an evaluation, as `val/<name>` -> key of the metric; `train.best_metric` chooses among them.
LOGGED = {"loss": "nll", "accuracy": "accuracy", "f1_macro": "f1_macro"}


def ranking_of(best_metric: str) -> Ranking:
    """Return what tells the best checkpoint by a value of `train.best_metric`, such as `val/f1_macro`."""
    metric = _logged_metrics()[best_metric.removeprefix("val/")]
    return Ranking(best_metric, metric.higher_is_better)


def _logged_metrics() -> dict[str, Metric]:
    by_key = {metric.key: metric for metric in METRICS}
    return {name: by_key[key] for name, key in LOGGED.items()}


def example_scores(dataset: Dataset, indices: np.ndarray, probabilities: np.ndarray) -> Scores:
    """Return `classification_metrics` of some examples of a dataset, resampled by their groups if they have any."""
    groups = dataset.groups_of(indices)
    return classification_metrics(dataset.labels[indices], probabilities, dataset.class_names, groups=groups)


def classification_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> Scores:
    """Return everything `metrics.json` holds of predictions, as plain Python numbers.

    Args:
      labels: integers in [0, k), [n].
      probabilities: in [0, 1], rows summing to 1, [n, k]; the prediction is the first largest column.
      class_names: k distinct names.
      groups: the group of each example, such as its patient, [n]; None: each example is independent of the others.
      seed: seed of the bootstrap.

    Raises:
      DataError: a probability is not finite.
      ValueError: no examples, or arguments that do not fit each other.
    """
    predictions = Predictions(*_checked(labels, probabilities, class_names))
    scores = _scores(predictions, class_names, groups, seed)
    present = predictions.present
    if len(present) == len(class_names):
        forced = scores
    elif len(present) == 1:
        forced = None  # Whoever has one class to choose from is right.
    else:
        forced = _scores(forced_choice(predictions), _present_names(predictions, class_names), groups, seed)
    return scores | {"forced_choice": dict(forced) if forced else None}


def _scores(predictions: Predictions, class_names: Sequence[str], groups: Sequence[str] | None, seed: int) -> Scores:
    numbers = None if groups is None else np.unique(np.asarray(groups, object), return_inverse=True)[1]
    arrays = predictions.labels, predictions.predicted
    if numbers is None:
        accuracy_ci95, f1_macro_ci95 = ci95_by_examples(predictions.confusion, seed)
    else:
        accuracy_ci95, f1_macro_ci95 = ci95_by_groups(*arrays, numbers, len(class_names), seed)
    recall_ci95, specificity_ci95 = class_ci95(*arrays, numbers, len(class_names), seed)
    return {
        "n": len(predictions),
        **{metric.key: metric.compute(predictions) for metric in METRICS},
        "per_class": {
            name: {
                "precision": float(predictions.precision[c]),
                "recall": float(predictions.recall[c]),
                "f1": float(predictions.f1[c]),
                "support": int(predictions.support[c]),
                "recall_ci95": recall_ci95[c],
                "specificity": predictions.specificity[c],
                "specificity_ci95": specificity_ci95[c],
            }
            for c, name in enumerate(class_names)
        },
        "confusion_matrix": predictions.confusion.tolist(),
        "accuracy_ci95": accuracy_ci95,
        "f1_macro_ci95": f1_macro_ci95,
        "intervals_by": "examples" if groups is None else "groups",
        "n_groups": None if groups is None else len(set(groups)),
        "present_classes": _present_names(predictions, class_names),
        "auc_macro_ovr_reason": _why_no_auc(predictions, class_names),
    }


def forced_choice(predictions: Predictions) -> Predictions:
    """Return what the model says when it must choose among the classes that have examples.

    Their probabilities are scaled to a sum of 1; a row in which all of them are 0 says nothing, so they become equal.
    """
    among = predictions.probabilities[:, predictions.present]
    total = among.sum(axis=1, keepdims=True)
    restricted = np.where(total > 0, among / np.where(total > 0, total, 1), 1 / len(predictions.present))
    return Predictions(np.searchsorted(predictions.present, predictions.labels), restricted)


def quick_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float | None]:
    """Return the metrics that training logs: loss (mean negative log likelihood), accuracy and macro F1.

    If a probability is not finite, all are NaN: the largest column of such a row says nothing, and a checkpoint whose
    metrics are not finite is never the best.
    """
    if not np.isfinite(probabilities).all():
        return dict.fromkeys(LOGGED, float("nan"))
    predictions = Predictions(labels, probabilities)
    return {name: metric.compute(predictions) for name, metric in _logged_metrics().items()}


def auc_macro_ovr(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Return the mean one-versus-rest area under the ROC curve; None if a class has no example or all."""
    from sklearn.metrics import roc_auc_score

    support = np.bincount(labels, minlength=probabilities.shape[1])
    if np.any((support == 0) | (support == len(labels))):
        return None
    return float(np.mean([roc_auc_score(labels == c, column) for c, column in enumerate(probabilities.T)]))


def _specificity(confusion: np.ndarray) -> list[float | None]:
    others = confusion.sum() - confusion.sum(axis=1)
    wrongly = confusion.sum(axis=0) - confusion.diagonal()
    return [
        1 - wrong / other if other else None for wrong, other in zip(wrongly.tolist(), others.tolist(), strict=True)
    ]


def _present_names(predictions: Predictions, class_names: Sequence[str]) -> list[str]:
    return [name for name, support in zip(class_names, predictions.support, strict=True) if support]


def _why_no_auc(predictions: Predictions, class_names: Sequence[str]) -> str | None:
    """Return why `auc_macro_ovr` is null: one class against the rest needs examples on both sides."""
    present = _present_names(predictions, class_names)
    if len(present) == 1:
        return f"all examples are {present[0]}"
    absent = [name for name in class_names if name not in present]
    return f"no example of {', '.join(absent)}" if absent else None


def _average(values: np.ndarray, *, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights))


def _checked(
    labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    labels = np.asarray(labels)
    probabilities = np.asarray(probabilities, np.float64)
    if labels.ndim != 1 or probabilities.shape != (len(labels), len(class_names)):
        raise ValueError(
            f"labels {labels.shape}, probabilities {probabilities.shape} and {len(class_names)} class names"
            " do not fit: expected [n], [n, k] and k"
        )
    if not len(labels):
        raise ValueError("no examples to score")
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise ValueError(f"labels {labels.min()}..{labels.max()} lie outside [0, {len(class_names)})")
    if len(set(class_names)) != len(class_names):
        raise ValueError(f"class names {list(class_names)} are not distinct")
    check_finite(probabilities)
    return labels, probabilities


def check_finite(probabilities: np.ndarray, checkpoint: str = "the checkpoint") -> None:
    """Refuse probabilities [n, k] of a model that diverged: its first class would look like its answer.

    Raises:
      DataError: a probability is not finite; the message names the checkpoint.
    """
    broken = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if len(broken):
        raise DataError(
            f"{len(broken):,} of {len(probabilities):,} examples have probabilities that are not finite (the first is"
            f" number {broken[0]}): {checkpoint} holds numbers that are not finite; choose an earlier one"
        )
