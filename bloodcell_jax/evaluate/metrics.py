"""Scores of a classifier from its probabilities, by scikit-learn's definitions.

The classes are all columns of `probabilities`, whether or not a class has examples: a class that is neither
present nor predicted counts as 0 in macro averages (scikit-learn's `labels=range(k), zero_division=0`), so
scores of different splits and slices average over the same classes. Balanced accuracy is scikit-learn's too:
the mean recall of the classes that have examples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bloodcell_jax.errors import DataError
from bloodcell_jax.workdir.checkpoints import Ranking

CALIBRATION_BINS = 15
RESAMPLES = 1_000

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
    """

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray):
        self.labels, self.probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
        self.predicted = self.probabilities.argmax(axis=1)
        self.confusion = confusion_matrix(self.labels, self.predicted, self.probabilities.shape[1])
        self.precision, self.recall, self.f1 = precision_recall_f1(self.confusion)
        self.support = self.confusion.sum(axis=1)

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
    Metric("f1_macro", "F1, macro", "percent", True, lambda p: float(p.f1.mean())),
    Metric("balanced_accuracy", "Balanced accuracy", "percent", True, lambda p: float(p.recall[p.support > 0].mean())),
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


def classification_metrics(
    labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], *, seed: int = 0
) -> Scores:
    """Return everything `metrics.json` holds, as plain Python numbers.

    Args:
      labels: integers in [0, k), [n].
      probabilities: in [0, 1], rows summing to 1, [n, k]; the prediction is the first largest column.
      class_names: k distinct names.
      seed: seed of the bootstrap.

    Raises:
      DataError: a probability is not finite.
      ValueError: no examples, or arguments that do not fit each other.
    """
    predictions = Predictions(*_checked(labels, probabilities, class_names))
    accuracy_ci95, f1_macro_ci95 = bootstrap_ci95(predictions.confusion, seed)
    return {
        "n": len(predictions),
        **{metric.key: metric.compute(predictions) for metric in METRICS},
        "per_class": {
            name: {
                "precision": float(predictions.precision[c]),
                "recall": float(predictions.recall[c]),
                "f1": float(predictions.f1[c]),
                "support": int(predictions.support[c]),
            }
            for c, name in enumerate(class_names)
        },
        "confusion_matrix": predictions.confusion.tolist(),
        "accuracy_ci95": accuracy_ci95,
        "f1_macro_ci95": f1_macro_ci95,
    }


def quick_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float | None]:
    """Return the metrics that training logs: loss (mean negative log likelihood), accuracy and macro F1.

    Probabilities that are not finite give a loss that is not finite; the training loop decides what follows.
    """
    predictions = Predictions(labels, probabilities)
    return {name: metric.compute(predictions) for name, metric in _logged_metrics().items()}


def accuracy(confusion: np.ndarray) -> float:
    """Return the share of examples on the diagonal."""
    return float(np.trace(confusion) / confusion.sum())


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Count examples by true class (row) and predicted class (column), [k, k]."""
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def precision_recall_f1(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and F1 of every class, [k] each; 0 if the denominator is 0."""
    hits = np.diagonal(confusion).astype(np.float64)
    predicted, support = confusion.sum(axis=0), confusion.sum(axis=1)
    return _ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, predicted + support)


def auc_macro_ovr(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Return the mean one-versus-rest area under the ROC curve; None if a class has no example or all."""
    from sklearn.metrics import roc_auc_score

    support = np.bincount(labels, minlength=probabilities.shape[1])
    if np.any((support == 0) | (support == len(labels))):
        return None
    return float(np.mean([roc_auc_score(labels == c, column) for c, column in enumerate(probabilities.T)]))


def negative_log_likelihood(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean of -log p(label), p clipped at float64's epsilon: one example costs at most 36.04."""
    likelihood = np.take_along_axis(probabilities, labels[:, None], axis=1)
    return float(np.mean(np.log(1 / np.clip(likelihood, np.finfo(np.float64).eps, 1))))


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the squared distance to the one-hot label, summed over classes, averaged over examples."""
    one_hot = labels[:, None] == np.arange(probabilities.shape[1])
    return float(np.mean(np.sum((probabilities - one_hot) ** 2, axis=1)))


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


def bootstrap_ci95(confusion: np.ndarray, seed: int) -> tuple[list[float], list[float]]:
    """Return the 95 % percentile intervals of accuracy and macro F1, each [lower, upper].

    Both scores depend on the confusion matrix alone, and the matrix of n examples drawn with replacement is a
    multinomial draw of its cells: the same distribution at the cost of k * k numbers instead of n.
    Without a single error there is nothing to resample: the accuracy's interval is [1, 1], too narrow.
    """
    rng = np.random.default_rng(seed)
    cells = np.nonzero(confusion)
    n = confusion.sum()
    resample = np.zeros_like(confusion)
    scores = np.empty((RESAMPLES, 2))
    for i in range(RESAMPLES):
        resample[cells] = rng.multinomial(n, confusion[cells] / n)
        scores[i] = np.trace(resample) / n, precision_recall_f1(resample)[2].mean()
    accuracy, f1_macro = np.percentile(scores, [2.5, 97.5], axis=0).T.tolist()
    return accuracy, f1_macro


def _average(values: np.ndarray, *, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)


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
