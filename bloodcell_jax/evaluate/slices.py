"""Parts of an evaluated split that are scored by themselves, such as the images of one stain or microscope.

A slice is named by a column of the manifest, or by a column of a table beside the source: `PATH:COLUMN`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.manifest.table import SUFFIXES, Table, read_table, shown
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.intervals import with_width
from bloodcell_jax.evaluate.metrics import classification_metrics

# What each slice keeps of the scores of its images.
_KEPT = (
    "n",
    "accuracy",
    "accuracy_ci95",
    "balanced_accuracy",
    "f1_macro",
    "f1_macro_ci95",
    "present_classes",
    "intervals_by",
    "n_groups",
)
# A column of more values names images, not slices.
MOST_VALUES = 50
_BLANK = "(blank)"

# Name of a column -> the value of every example of a dataset.
Slices = dict[str, tuple[str, ...]]


def read_slices(dataset: Dataset, names: Sequence[str]) -> Slices:
    """Return the value of every example in each column that is asked for.

    Args:
      dataset: its columns are those of its manifest.
      names: a column of the dataset, or `PATH:COLUMN` of a table with a row for every image. The column `file` of the
        table holds ids of the dataset, or names of files that no two images share.

    Raises:
      UsageError: there is no such column, or it names images rather than slices.
      DataError: the table cannot be read, or does not have one row for every image.
    """
    slices: Slices = {}
    for name in names:
        path, colon, column = name.rpartition(":")
        if colon and path.lower().endswith(SUFFIXES):
            values = _of_table(dataset, Path(path).expanduser(), column)
        elif name in dataset.columns:
            column, values = name, dataset.columns[name]
        else:
            own = ", ".join(dataset.columns) or "none of its own"
            raise UsageError(
                f"--slices={name}: {dataset.source} has no such column ({own}); name one, or PATH:COLUMN of a table "
                f"({', '.join(SUFFIXES)}) beside it"
            )
        if column in slices:
            raise UsageError(f"--slices={name}: column {column} stands twice; name it once")
        slices[column] = _checked(tuple(value.strip() or _BLANK for value in values), name)
    return slices


def score_slices(
    slices: Mapping[str, Sequence[str]],
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the scores of each slice: column -> value -> what `metrics.json` holds of its images.

    Args:
      slices: the value of each example by column, [n] each.
      labels, probabilities, class_names, groups: those of `classification_metrics`.
    """
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    for column, values in slices.items():
        scores[column] = {}
        for value in sorted(set(values)):
            rows = [row for row, cell in enumerate(values) if cell == value]
            own = None if groups is None else [groups[row] for row in rows]
            metrics = classification_metrics(labels[rows], probabilities[rows], class_names, groups=own)
            scores[column][value] = {key: metrics[key] for key in _KEPT} | _intervals_with_width(metrics)
    return scores


def _intervals_with_width(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the intervals of a slice; without an error, resampling shows no spread, and a slice has few images."""
    f1_macro = metrics["f1_macro_ci95"]
    return {
        "accuracy_ci95": with_width(metrics["accuracy_ci95"], metrics["n_groups"] or metrics["n"]),
        "f1_macro_ci95": None if f1_macro is None or f1_macro[0] == f1_macro[1] else f1_macro,
    }


def _checked(values: tuple[str, ...], name: str) -> tuple[str, ...]:
    if (count := len(set(values))) > MOST_VALUES:
        raise UsageError(
            f"--slices={name}: {count:,} values, of which each would be a slice; name a column of at most {MOST_VALUES}"
        )
    return values


def _of_table(dataset: Dataset, path: Path, column: str) -> tuple[str, ...]:
    """Return the cell of a column for every example."""
    place = str(path)
    table = read_table(path, place)
    for wanted in ("file", column):
        if wanted not in table.columns:
            raise UsageError(
                f"--slices={place}:{column}: no column {wanted!r}; the first line names {shown(table.columns)}"
            )
    rows = _rows_by_file(table)
    found = [_row_of(str(example), rows, table, place) for example in dataset.ids]
    _check_apart(dataset, found, place)
    return tuple(table.columns[column][row] for row in found)


def _rows_by_file(table: Table) -> dict[str, list[int]]:
    rows = defaultdict(list)
    for row, file in enumerate(table.columns["file"]):
        rows[file.strip()].append(row)
    return rows


def _row_of(example: str, rows: Mapping[str, list[int]], table: Table, place: str) -> int:
    """Return the row of an example: the one that holds its id, else the one that holds the name of its file."""
    for file in (example, PurePosixPath(example).name):
        if len(found := rows.get(file, [])) > 1:
            places = shown(table.places[row] for row in found)
            raise DataError(f"{place}: {file} stands in several rows ({places}); leave one of them")
        if found:
            return found[0]
    raise DataError(f"{place}: no row for {example}; its column 'file' holds ids such as {example}, or names of files")


def _check_apart(dataset: Dataset, found: Sequence[int], place: str) -> None:
    """Refuse a table in which two images have one row: the name of their file does not tell them apart."""
    first: dict[int, int] = {}
    for example, row in enumerate(found):
        if (other := first.setdefault(row, example)) != example:
            raise DataError(
                f"{place}: one row for two images, {dataset.ids[other]} and {dataset.ids[example]}; write their whole "
                "ids into its column 'file'"
            )
