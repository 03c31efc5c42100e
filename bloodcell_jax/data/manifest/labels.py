"""The labels of a manifest: names, numbers with or without names, or a column of 0 and 1 for each class."""

import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bloodcell_jax.data.class_tree import check_spelling, sorted_class_names
from bloodcell_jax.data.file_trees import class_name_of
from bloodcell_jax.data.manifest.table import Table, read_table, shown
from bloodcell_jax.errors import DataError

logger = logging.getLogger(__name__)

# What pandas, R, Excel and JSON leave in a cell without a value.
_EMPTY = ("", "nan", "null", "na", "n/a", "#n/a", "<na>")
# A longer text is a description, no name.
_LONGEST = 200
_FLAGS = {"0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True)
class Labels:
    """The class of each row.

    Attributes:
      classes: name of the class, empty where the row has none.
      names: all classes, in their order.
      faults: why a row has no class, by row.
    """

    classes: list[str]
    names: tuple[str, ...]
    faults: dict[int, str]


def is_empty(cell: str) -> bool:
    """Return whether a cell has no value."""
    return cell.strip().lower() in _EMPTY


def read_labels(
    table: Table, columns: Sequence[str], names_path: str | None, class_names: tuple[str, ...], source: str
) -> Labels:
    """Return the class of each row.

    Args:
      table: the manifest.
      columns: one column of labels, or one of 0 and 1 for each class.
      names_path: table of labels and their names; None: labels are names, or numbers.
      class_names: the classes in their order; empty: the manifest's own.
      source: what messages name.

    Raises:
      DataError: a label is unknown, or two differ by case, blanks or leading zeros only.
    """
    if len(columns) > 1:
        labels, faults = _one_hot(table, columns, source)
        own: tuple[str, ...] = tuple(map(class_name_of, columns))
    else:
        labels, own = table.columns[columns[0]], ()
        faults = {i: f"no {columns[0]}" for i, label in enumerate(labels) if is_empty(label)}
    filled = {label for i, label in enumerate(labels) if i not in faults}
    _check_names(filled, columns[0], source)
    check_spelling(filled, "labels", source)
    plain = {label: plain_cell(label) for label in filled}
    if len(columns) == 1 and filled and all(map(_is_number, plain.values())):
        _check_whole(plain.values(), columns[0], source)
    if names_path is not None:
        known = _table_of_names(names_path)
        own = tuple(known.values())
        _check_known(Counter(plain[label] for label in labels if label in plain), known, f"in {names_path}", source)
        plain = {label: known[text] for label, text in plain.items()}
    if class_names:
        counts = Counter(plain[label] for i, label in enumerate(labels) if i not in faults)
        named = _by_class_names(counts, class_names, source)
        plain, own = {label: named[text] for label, text in plain.items()}, class_names
    classes = ["" if i in faults else plain[label] for i, label in enumerate(labels)]
    return Labels(classes, own or sorted_class_names(plain.values()), faults)


def _one_hot(table: Table, columns: Sequence[str], source: str) -> tuple[list[str], dict[int, str]]:
    """Return the name of the one column that holds 1, and the rows in which none or several do."""
    labels, faults, wrong = [], {}, []
    for i, cells in enumerate(zip(*(table.columns[name] for name in columns), strict=True)):
        values = [_FLAGS.get(plain_cell(cell).lower()) for cell in cells]
        if None in values:
            at = values.index(None)
            wrong.append(f"{table.places[i]} ({columns[at]}: {cells[at]!r})")
        ones = [name for name, value in zip(columns, values, strict=True) if value]
        labels.append(ones[0] if len(ones) == 1 else "")
        if len(ones) != 1:
            faults[i] = f"1 in {' and '.join(ones)}" if ones else "1 in no column of a class"
    if wrong:
        raise DataError(
            f"{source}: {len(wrong):,} rows hold other values than 0 and 1 in the columns of the classes: "
            f"{shown(wrong)}; write 0 or 1"
        )
    return labels, faults


def plain_cell(cell: str) -> str:
    """Return a cell without blanks around it, and a whole number without its decimals: writers turn 1 into 1.0."""
    text = class_name_of(cell.strip()) if cell.strip() else ""
    return text.partition(".")[0] if re.fullmatch(r"-?[0-9]+\.0*", text) else text


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?", text) is not None


def _check_whole(labels: Iterable[str], column: str, source: str) -> None:
    """Refuse numbers that count no classes: they are measurements, or marks of rows without a label."""
    odd = sorted(label for label in set(labels) if not label.isdecimal())
    if odd:
        raise DataError(
            f"{source}: column {column!r} holds the numbers {shown(odd)}, which are no labels; name another column by "
            "data.columns=label=COLUMN, or leave these cells empty"
        )


def _check_names(labels: Iterable[str], column: str, source: str) -> None:
    """Refuse texts that are no names: lists of JSON, descriptions, and characters that nobody sees."""
    odd = [label for label in labels if len(label) > _LONGEST or not label.strip().isprintable() or label[:1] in "[{"]
    if odd:
        raise DataError(
            f"{source}: column {column!r} holds {len(odd):,} texts that are no names of classes, such as "
            f"{sorted(odd)[0][:50]!r}; write one short name in each cell"
        )


def _table_of_names(path: str) -> dict[str, str]:
    """Return label -> class name, in the order of the table."""
    source = f"data.columns: class_names={path}"
    table = read_table(Path(os.path.expanduser(path)), source)
    by_name = {name.casefold(): cells for name, cells in table.columns.items()}
    if by_name.keys() != {"label", "name"}:
        raise DataError(f"{source}: its columns are {shown(table.columns)}; they must be label,name")
    labels, names = [list(map(plain_cell, by_name[column])) for column in ("label", "name")]
    for what, cells in (("label", labels), ("name", names)):
        bad = sorted(cell or "an empty cell" for cell, count in Counter(cells).items() if count > 1 or is_empty(cell))
        if bad:
            raise DataError(f"{source}: column {what}: {shown(bad)}; every label and every name stands once")
    return dict(zip(labels, names, strict=True))


def _by_class_names(counts: Counter[str], names: tuple[str, ...], source: str) -> dict[str, str]:
    """Return label -> class; numbers count the class names from 0 if no name is a number."""
    if counts and all(label.isdecimal() for label in counts) and not any(name.isdecimal() for name in names):
        numbers = sorted(map(int, counts))
        if numbers[0] != 0:
            first = next(label for label in counts if int(label) == numbers[0])
            from_0 = names[numbers[0]] if numbers[0] < len(names) else "none"
            raise DataError(
                f"{source}: its labels are the numbers {shown(map(str, numbers))}, without 0: counted from 0, label "
                f"{first} is {from_0}; counted from {first}, it is {names[0]}. Name each label in a table of the "
                "columns label,name: data.columns=class_names=PATH"
            )
        if numbers[-1] < len(names):
            pairs = ", ".join(f"{number} is {names[number]}" for number in numbers)
            logger.warning("%s: its labels are numbers, which count data.class_names: %s", source, pairs)
            return {label: names[int(label)] for label in counts}
    _check_known(counts, names, f"among data.class_names ({', '.join(names)})", source)
    return {label: label for label in counts}


def _check_known(counts: Counter[str], known: Collection[str], where: str, source: str) -> None:
    unknown = [f"{label} ({count:,} rows)" for label, count in sorted(counts.items()) if label not in known]
    if unknown:
        raise DataError(f"{source}: {len(unknown):,} labels are not {where}: {shown(unknown)}; add or rename them")
