"""The scores of a suite, as `eval/<split>/<suite>.json` holds them."""

from typing import Any

import numpy as np

from bloodcell_jax.evaluate.confusion import accuracy, confusion_matrix, precision_recall_f1
from bloodcell_jax.evaluate.robustness.suites import Suite
from bloodcell_jax.workdir.suite_records import corruptions_of

# {"accuracy", "balanced_accuracy"} of some answers.
SuiteScore = dict[str, float]


def suite_scores(
    suite: Suite, labels: np.ndarray, clean: np.ndarray, corrupted: np.ndarray, num_classes: int
) -> dict[str, Any]:
    """Return the scores of a suite.

    Args:
      suite: what was done to the images.
      labels: int [n].
      clean: the class that the model answers to each image as it is, int [n].
      corrupted: the class that it answers in each pass of the suite, int [n, passes], in the suite's order.
      num_classes: classes of the model.

    Returns:
      `clean`; for each corruption and severity `accuracy` and `balanced_accuracy`; `mean`, over all of these; and
      `relative`, what the mean is above (or, negative, below) `clean`. Balanced accuracy is over the classes present.
    """
    scores = iter(score(labels, predicted, num_classes) for predicted in corrupted.T)
    each = {
        corruption.name: {str(level): next(scores) for level in range(1, len(corruption.severities) + 1)}
        for corruption in suite.corruptions
    }
    all_scores = [of_level for levels in each.values() for of_level in levels.values()]
    of_clean = score(labels, clean, num_classes)
    mean = {name: float(np.mean([of_level[name] for of_level in all_scores])) for name in of_clean}
    relative = {name: mean[name] - of_clean[name] for name in mean}
    return {"clean": of_clean, **each, "mean": mean, "relative": relative}


def score(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> SuiteScore:
    """Return the accuracy and the balanced accuracy, the mean recall of the classes that have examples."""
    confusion = confusion_matrix(labels, predicted, num_classes)
    recall = precision_recall_f1(confusion)[1]
    return {"accuracy": accuracy(confusion), "balanced_accuracy": float(recall[confusion.sum(axis=1) > 0].mean())}


def suite_summary(name: str, scores: dict[str, Any]) -> str:
    """Return the scores of a suite as a line for the command line."""
    clean, mean = scores["clean"], scores["mean"]
    passes = {
        f"{corruption} {level}": of_level["balanced_accuracy"]
        for corruption, levels in corruptions_of(scores).items()
        for level, of_level in levels.items()
    }
    worst = min(passes, key=lambda each: passes[each])
    return (
        f"{name}: balanced accuracy {mean['balanced_accuracy']:.4f} ({clean['balanced_accuracy']:.4f} clean), "
        f"accuracy {mean['accuracy']:.4f} ({clean['accuracy']:.4f}); worst: {worst}, {passes[worst]:.4f}"
    )
