"""The rows of `predict`: a CSV for spreadsheets, or JSON lines for programs."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from bloodcell_jax.errors import UsageError
from bloodcell_jax.evaluate.classified_files import ClassifiedFile
from bloodcell_jax.names import spreadsheet_cell
from bloodcell_jax.workdir.output_files import csv_writer

# What the columns of `--top` are called, from the second likeliest class on.
_ORDINALS = ("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_MOST_TOP = len(_ORDINALS) + 1
# The last columns: how far an image is from what the model knows, and whether it knows it.
_KNOWLEDGE = ("ood_score", "known")
_JSON_LINES = ".jsonl"
# Suffixes that promise another format.
_OTHER_FORMATS = (".json", ".ndjson", ".tsv", ".xls", ".xlsx", ".ods", ".parquet", ".npz", ".html", ".htm", ".pdf")

WriteRow = Callable[[ClassifiedFile], None]


def check_format(output: Path) -> None:
    """Check that the suffix of an output promises no other format than CSV or JSON lines.

    Raises:
      UsageError: it does.
    """
    if output.suffix.lower() in _OTHER_FORMATS:
        raise UsageError(
            f"--output={output}: {output.suffix} is not written; name a CSV, as in {output.with_suffix('.csv')}, or "
            f"JSON lines, as in {output.with_suffix(_JSON_LINES)}"
        )


def check_top(top: int, class_names: Sequence[str]) -> None:
    """Check that there are so many classes, and columns for them.

    Raises:
      UsageError: there are fewer.
    """
    if top > (most := min(len(class_names), _MOST_TOP)):
        raise UsageError(f"--top={top}: the model has {len(class_names)} classes; give at most {most}")


def row_writer(
    output: Path, file: IO[str], class_names: Sequence[str], *, top: int, calibrated: bool, raw_names: bool
) -> WriteRow:
    """Return what writes the row of a file, after the header if there is one.

    Args:
      output: its suffix says whether these are JSON lines.
      file: where the rows go.
      class_names: of the model.
      top: how many of the likeliest classes have columns of their own.
      calibrated: the files have an `ood_score`, which the last two columns say.
      raw_names: names in a CSV are exact, even if a spreadsheet would run them as formulas; JSON's always are.
    """
    if output.suffix.lower() == _JSON_LINES:
        return _json_writer(file, class_names, top)
    return _csv_writer(file, class_names, top, calibrated, raw_names)


def csv_header(class_names: Sequence[str], *, top: int = 1, calibrated: bool, raw_names: bool = False) -> list[str]:
    """Return the names of the columns of a CSV; arguments as of `row_writer`."""
    cell = _cell(raw_names)
    answers = [column for pair in _answer_columns(top) for column in pair]
    return ["file", *answers, *map(cell, class_names), *(_KNOWLEDGE if calibrated else ())]


def csv_cells(
    classified: ClassifiedFile, class_names: Sequence[str], *, top: int = 1, raw_names: bool = False
) -> list[str]:
    """Return the cells of a file's row of a CSV; arguments as of `row_writer`."""
    cell = _cell(raw_names)
    values = [f"{p:.6f}" for p in classified.probabilities]
    answers = (part for label in classified.most_likely(top) for part in (cell(class_names[label]), values[label]))
    row = [cell(classified.file.name), *answers, *values]
    if classified.ood_score is not None:
        row += [f"{classified.ood_score:.6f}", "true" if classified.known else "false"]
    return row


def json_object(classified: ClassifiedFile, class_names: Sequence[str], *, top: int = 1) -> dict[str, Any]:
    """Return a file's row as a JSON object; arguments as of `row_writer`."""
    values = [round(p, 6) for p in classified.probabilities.tolist()]
    row: dict[str, Any] = {"file": classified.file.name}
    for (name, confidence), label in zip(_answer_columns(top), classified.most_likely(top), strict=True):
        row |= {name: class_names[label], confidence: values[label]}
    row["probabilities"] = dict(zip(class_names, values, strict=True))
    if classified.ood_score is not None:
        row |= dict(zip(_KNOWLEDGE, (round(classified.ood_score, 6), classified.known), strict=True))
    return row


def _cell(raw_names: bool) -> Callable[[str], str]:
    return str if raw_names else spreadsheet_cell


def _answer_columns(top: int) -> list[tuple[str, str]]:
    """Return the names of the columns of the likeliest classes and of their probabilities."""
    return [("predicted", "confidence"), *((name, f"{name}_confidence") for name in _ORDINALS[: top - 1])]


def _csv_writer(file: IO[str], class_names: Sequence[str], top: int, calibrated: bool, raw_names: bool) -> WriteRow:
    writer = csv_writer(file)
    writer.writerow(csv_header(class_names, top=top, calibrated=calibrated, raw_names=raw_names))
    return lambda classified: writer.writerow(csv_cells(classified, class_names, top=top, raw_names=raw_names))


def _json_writer(file: IO[str], class_names: Sequence[str], top: int) -> WriteRow:
    def write(classified: ClassifiedFile) -> None:
        file.write(json.dumps(json_object(classified, class_names, top=top), allow_nan=False) + "\n")

    return write
