"""Likely label errors, found by confident learning from predictions that were made out of fold."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.errors import DataError
from bloodcell_jax.names import names_by_cell
from bloodcell_jax.regular_files import check_regular_file

# The probabilities of a hundred classes, written with 6 digits, add up to 1 within this.
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class LabelError:
    """An image whose class is likely not the one that its label says.

    Attributes:
      index: index of the example.
      label: the class that the label says.
      suggested: the class that it is confidently counted to.
      margin: the label's probability less the largest of the other classes'; a lower margin is a likelier error.
    """

    index: int
    label: int
    suggested: int
    margin: float


def find_label_errors(labels: np.ndarray, probabilities: np.ndarray) -> list[LabelError]:
    """Rank likely label errors, the likeliest first.

    This is confident learning (Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset
    labels", JAIR 70, 2021, section 3). The threshold of class j is the mean probability of j over the examples labeled
    j. An example counts to the likeliest of the classes whose thresholds it reaches. Examples that count to another
    class than their label are the off-diagonal of the confident joint; they are ranked by normalized margin.

    Args:
      labels: int [n].
      probabilities: float [n, classes]; each row comes from a model that was not trained on that example.
    """
    classes = probabilities.shape[1]
    # Nothing counts to a class without examples.
    thresholds = np.array(
        [probabilities[labels == j, j].mean() if (labels == j).any() else np.inf for j in range(classes)]
    )
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    counted = confident.argmax(axis=1)
    rows = np.flatnonzero((confident.max(axis=1) >= 0) & (counted != labels))
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1.0
    margins = probabilities[np.arange(len(labels)), labels] - others.max(axis=1)
    order = rows[np.argsort(margins[rows], kind="stable")]
    return [LabelError(int(i), int(labels[i]), int(counted[i]), float(margins[i])) for i in order]


class Predicted(NamedTuple):
    """The predictions in which label errors are looked for.

    Attributes:
      n: number of images that they cover.
      accuracy: share of these images on which they are right.
    """

    n: int
    accuracy: float

    def note(self, total: int) -> str:
        """Return what the list of label errors is worth, among `total` images."""
        return (
            f"The predictions cover {self.n:,} of {total:,} images and are right on {self.accuracy:.1%} of them: label "
            "errors are looked for among these images alone, and a weak model makes the list longer."
        )


def read_predictions(path: Path, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return example indices [m] and probabilities [m, classes] of a `predictions.csv` of this dataset.

    Raises:
      DataError: the file cannot be read, or is not of these examples, labels and classes; names the line.
    """
    check_regular_file(path)
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}); give a predictions.csv of this source") from error
    class_of = names_by_cell(dataset.class_names)
    expected = ["id", "label", "predicted", "confidence", *dataset.class_names]
    if not rows or [*rows[0][:4], *(class_of.get(cell) for cell in rows[0][4:])] != expected:
        found = ",".join(rows[0]) if rows else "nothing"
        raise DataError(f"{path}: its header is {found}; the predictions of this source have {','.join(expected)}")
    place = {name: i for i, name in enumerate(dataset.ids)}
    index_of = {cell: place[name] for cell, name in names_by_cell(dataset.ids).items()}
    indices, probabilities = [], []
    for number, row in enumerate(rows[1:], 2):
        try:
            indices.append(_checked_index(row, index_of, class_of, dataset))
            probabilities.append(_probabilities(row[4:], len(dataset.class_names)))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}; give predictions of this very source") from error
    if len(set(indices)) < len(indices):
        raise DataError(
            f"{path}: lines that repeat an id: {len(indices) - len(set(indices))}; give each example's out-of-fold "
            "prediction once"
        )
    if not indices:
        raise DataError(f"{path}: holds no prediction; give a predictions.csv of this source")
    return np.array(indices), np.array(probabilities)


def _checked_index(row: list[str], index_of: dict[str, int], class_of: dict[str, str], dataset: Dataset) -> int:
    if len(row) < 2 or row[0] not in index_of:
        raise ValueError(f"{row[0] if row else 'an empty line'} is no example of {dataset.source}")
    index = index_of[row[0]]
    label = dataset.class_names[dataset.labels[index]]
    if class_of.get(row[1]) != label:
        raise ValueError(f"{row[0]} is labeled {row[1]}, in {dataset.source} {label}")
    return index


def _probabilities(cells: list[str], classes: int) -> np.ndarray:
    values = np.array([float(cell) for cell in cells])
    if len(values) != classes or not (values >= 0).all() or abs(values.sum() - 1) > _SUM_TOLERANCE:
        raise ValueError(f"{','.join(cells)} are not {classes} probabilities")
    return values
