"""The answers to every example of an evaluated split: `predictions.csv`, written and read."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.errors import DataError
from bloodcell_jax.names import spreadsheet_cell
from bloodcell_jax.workdir.layout import EvaluationFolder
from bloodcell_jax.workdir.output_files import csv_writer, open_text, read_csv

_DIGITS = 6
_ROUNDED_TO_0 = 0.5 * 10**-_DIGITS


class Prediction(NamedTuple):
    """A row of `predictions.csv`; id and classes are as its cells say them."""

    id: str
    label: str
    predicted: str
    confidence: float
    probabilities: tuple[float, ...]


def write_predictions(
    path: Path, dataset: Dataset, indices: np.ndarray, probabilities: np.ndarray, *, raw_names: bool = False
) -> None:
    """Write a row for each example: `id,label,predicted,confidence,<one column per class>`.

    Args:
      indices: the examples of the dataset that were judged, [n].
      probabilities: of these, [n, classes].
      raw_names: names are exact, even if a spreadsheet would run them as formulas.

    Raises:
      MachineError: the file cannot be written.
    """
    cell = str if raw_names else spreadsheet_cell
    class_names, predicted = [cell(name) for name in dataset.class_names], probabilities.argmax(axis=1)
    with open_text(path) as file:
        writer = csv_writer(file)
        writer.writerow(["id", "label", "predicted", "confidence", *class_names])
        for index, guess, row in zip(indices, predicted, probabilities, strict=True):
            values = [f"{p:.{_DIGITS}f}" for p in row]
            label = class_names[dataset.labels[index]]
            writer.writerow([cell(dataset.ids[int(index)]), label, class_names[guess], values[guess], *values])


def read_predictions(folder: EvaluationFolder) -> list[Prediction]:
    """Return the rows of `predictions.csv`; none if there is no such file.

    Raises:
      DataError: another program wrote it.
    """
    return read_csv(folder.predictions, _prediction) if folder.predictions.exists() else []


def read_predictions_of(folder: EvaluationFolder, dataset: Dataset, indices: np.ndarray) -> list[Prediction]:
    """Return the rows of `predictions.csv`, one for each of these examples in their order.

    Raises:
      DataError: another program wrote it, or its rows are those of other examples.
    """
    rows = read_predictions(folder)
    if [row.id for row in rows] != [spreadsheet_cell(dataset.ids[int(index)]) for index in indices]:
        split = folder.path.name
        raise DataError(
            f"{folder.predictions}: its rows are not the images of {split}; delete {folder.path} and run again"
        )
    return rows


def probabilities_of(rows: Sequence[Prediction]) -> np.ndarray:
    """Return the probabilities of rows, float64 [n, classes].

    What the file rounds to 0 is the largest number that it rounds so: a negative log likelihood would take a 0 for
    certain.
    """
    return np.maximum(np.array([row.probabilities for row in rows], np.float64), _ROUNDED_TO_0)


def _prediction(header: list[str], row: list[str]) -> Prediction:
    example, label, predicted, *numbers = row
    values = tuple(float(number) for number in numbers)
    if len(row) != len(header) or not values or not all(0 <= value <= 1 for value in values):
        raise ValueError("not an id, two classes, and probabilities")
    return Prediction(example, label, predicted, values[0], values[1:])
