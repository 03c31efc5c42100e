"""Each group of an evaluated split, such as a patient or slide: its accuracy and its differential count."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bloodcell_jax.evaluate.confusion import accuracy, confusion_matrix


@dataclass(frozen=True)
class GroupScores:
    """How a model does on one group.

    Attributes:
      name: the group.
      n: its examples.
      accuracy: the share of them that is classified rightly.
      labeled, predicted: its differential count: the share of each class by the labels and by the model, [k].
    """

    name: str
    n: int
    accuracy: float
    labeled: tuple[float, ...]
    predicted: tuple[float, ...]


def score_groups(
    groups: Sequence[str], labels: np.ndarray, predicted: np.ndarray, num_classes: int
) -> list[GroupScores]:
    """Score each group, in the order of their names.

    Args:
      groups: the group of each example, [n].
      labels, predicted: integers in [0, num_classes), [n].
      num_classes: k.
    """
    names, numbers = np.unique(np.asarray(groups, object), return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    scores = []
    for name, rows in zip(names, np.split(order, np.cumsum(np.bincount(numbers))[:-1]), strict=True):
        confusion = confusion_matrix(labels[rows], predicted[rows], num_classes)
        shares = (tuple((confusion.sum(axis=axis) / len(rows)).tolist()) for axis in (1, 0))
        scores.append(GroupScores(name, len(rows), accuracy(confusion), *shares))
    return scores


def write_groups(path: Path, scores: Sequence[GroupScores], class_names: Sequence[str]) -> None:
    """Write a row for each group: `group,n,accuracy`, then shares: `labeled CLASS,predicted CLASS` of every class."""
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = [f"{what} {name}" for name in class_names for what in ("labeled", "predicted")]
        writer.writerow(["group", "n", "accuracy", *columns])
        for group in scores:
            pairs = zip(group.labeled, group.predicted, strict=True)
            shares = [group.accuracy, *(share for pair in pairs for share in pair)]
            writer.writerow([group.name, group.n, *(f"{share:.6f}" for share in shares)])


def read_groups(path: Path) -> list[GroupScores]:
    """Return what `write_groups` wrote."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [
        GroupScores(name, int(n), float(right), tuple(map(float, shares[::2])), tuple(map(float, shares[1::2])))
        for name, n, right, *shares in rows
    ]
