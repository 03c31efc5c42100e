"""Label errors by confident learning, from predictions that were made out of fold."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.errors import DataError

# Written with 6 digits, the probabilities of a hundred classes add to 1 within this.
_SUM_TOLERANCE = 1e-3


class LabelError(NamedTuple):
    """An image that is likely of another class than its label says.

    Attributes:
      index: of the example.
      label: the class it is given.
      suggested: the class it is confidently counted to.
      margin: the label's probability less the largest of the other classes'; the lower, the likelier an error.
    """

    index: int
    label: int
    suggested: int
    margin: float


def find_label_errors(labels: np.ndarray, probabilities: np.ndarray) -> list[LabelError]:
    """Rank likely label errors, the likeliest first.

    Confident learning (Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels",
    JAIR 70, 2021, section 3): class j's threshold is the mean probability of j over the examples labeled j; an
    example counts to the likeliest of the classes whose thresholds it reaches. Those counted to another class than
    their label are the confident joint's off-diagonal, ranked by normalized margin.

    Args:
      labels: int [n].
      probabilities: [n, classes], each row by a model that was not trained on that example.
    """
    classes = probabilities.shape[1]
    # Of a class without examples there is nothing to be confident of.
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


def read_predictions(path: Path, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return example indices [m] and probabilities [m, classes] of a `predictions.csv` of this data set.

    Raises:
      DataError: it cannot be read, or is not of these examples, labels and classes; names the line.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    expected = ["id", "label", "predicted", "confidence", *dataset.class_names]
    if not rows or rows[0] != expected:
        found = ",".join(rows[0]) if rows else "nothing"
        raise DataError(f"{path}: its header is {found}; the predictions of this source have {','.join(expected)}")
    index_of = {name: i for i, name in enumerate(dataset.ids)}
    indices, probabilities = [], []
    for number, row in enumerate(rows[1:], 2):
        try:
            indices.append(_checked_index(row, index_of, dataset))
            probabilities.append(_probabilities(row[4:], len(dataset.class_names)))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}; give predictions of this very source") from error
    if len(set(indices)) < len(indices):
        raise DataError(f"{path}: an id stands twice; give each example's out-of-fold prediction once")
    if not indices:
        raise DataError(f"{path}: holds no prediction")
    return np.array(indices), np.array(probabilities)


def _checked_index(row: list[str], index_of: dict[str, int], dataset: Dataset) -> int:
    if len(row) < 2 or row[0] not in index_of:
        raise ValueError(f"{row[0] if row else 'an empty line'} is no example of {dataset.source}")
    index = index_of[row[0]]
    label = dataset.class_names[dataset.labels[index]]
    if row[1] != label:
        raise ValueError(f"{row[0]} is labeled {row[1]}, in {dataset.source} {label}")
    return index


def _probabilities(cells: list[str], classes: int) -> np.ndarray:
    values = np.array([float(cell) for cell in cells])
    if len(values) != classes or not (values >= 0).all() or abs(values.sum() - 1) > _SUM_TOLERANCE:
        raise ValueError(f"{','.join(cells)} are not {classes} probabilities")
    return values
