"""Each group of an evaluated split, such as a patient or slide: its accuracy and its differential count."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bloodcell_jax.evaluate.confusion import accuracy, confusion_matrix
from bloodcell_jax.names import spreadsheet_cell
from bloodcell_jax.workdir.output_files import csv_writer, open_text, read_csv


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


def write_groups(
    path: Path, scores: Sequence[GroupScores], class_names: Sequence[str], *, raw_names: bool = False
) -> None:
    """Write a row for each group: `group,n,accuracy`, then shares: `labeled CLASS,predicted CLASS` of every class.

    Raises:
      MachineError: the file cannot be written.
    """
    cell = str if raw_names else spreadsheet_cell
    with open_text(path) as file:
        writer = csv_writer(file)
        columns = [cell(f"{what} {name}") for name in class_names for what in ("labeled", "predicted")]
        writer.writerow(["group", "n", "accuracy", *columns])
        for group in scores:
            pairs = zip(group.labeled, group.predicted, strict=True)
            shares = [group.accuracy, *(share for pair in pairs for share in pair)]
            writer.writerow([cell(group.name), group.n, *(f"{share:.6f}" for share in shares)])


def read_groups(path: Path) -> list[GroupScores]:
    """Return what `write_groups` wrote; names are those of the cells.

    Raises:
      DataError: another program wrote it.
    """
    return read_csv(path, _read_row)


def write_example_groups(path: Path, ids: Sequence[object], groups: Sequence[str], *, raw_names: bool = False) -> None:
    """Write a row for each example: `id,group`, in the order of `predictions.csv`.

    Raises:
      MachineError: the file cannot be written.
    """
    cell = str if raw_names else spreadsheet_cell
    with open_text(path) as file:
        writer = csv_writer(file)
        writer.writerow(["id", "group"])
        writer.writerows([cell(str(example)), cell(group)] for example, group in zip(ids, groups, strict=True))


def read_example_groups(path: Path) -> dict[str, str]:
    """Return the group of each example by its id, as `write_example_groups` wrote it; both are cells.

    Raises:
      DataError: another program wrote it.
    """
    return dict(read_csv(path, _read_example))


def _read_example(header: list[str], row: list[str]) -> tuple[str, str]:
    example, group = row
    return example, group


def _read_row(header: list[str], row: list[str]) -> GroupScores:
    name, n, right, *shares = row
    values = [float(share) for share in (right, *shares)]
    if len(row) != len(header) or len(shares) % 2 or not all(0 <= value <= 1 for value in values):
        raise ValueError("not a group, its images, and shares of each class")
    return GroupScores(name, int(n), values[0], tuple(values[1::2]), tuple(values[2::2]))
