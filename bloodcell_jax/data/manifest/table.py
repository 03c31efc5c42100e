"""A table of text, from CSV with any usual delimiter or from JSON lines.

It is read strictly: a cell that slips into the next column would be a wrong label.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloodcell_jax.errors import DataError
from bloodcell_jax.regular_files import check_regular_file

SUFFIXES = (".csv", ".tsv", ".jsonl")
# An error is one line, so it names only this many rows or columns.
NAMED = 5
# Cells for each character of JSON lines; a row that names all columns has less than one. Ten thousand lines that name a
# column each would be a hundred million cells.
_MOST_EMPTY = 10
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
      columns: column name -> one cell a row; columns without a name are left out.
      places: what messages call each row, such as `line 7`.
      splits: the split of each row, if each split has a table of its own; None: a column may say it.
    """

    columns: dict[str, list[str]]
    places: list[str]
    splits: list[str] | None = None

    def __len__(self) -> int:
        return len(self.places)

    def take(self, rows: Sequence[int]) -> "Table":
        """Return some of the rows."""
        return Table(
            {name: [cells[i] for i in rows] for name, cells in self.columns.items()},
            [self.places[i] for i in rows],
            None if self.splits is None else [self.splits[i] for i in rows],
        )


def read_table(path: Path, source: str) -> Table:
    """Read a table from UTF-8, or UTF-16 with a byte order mark.

    Raises:
      DataError: the file cannot be read, is no text, has no row, a column stands twice, or a row has other cells than
        the header.
    """
    text = _text(path, source)
    header, rows, lines = _json_lines(text, source) if path.suffix.lower() == ".jsonl" else _csv_rows(text, source)
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise DataError(f"{source}: column {twice[0]!r} stands {header.count(twice[0])} times; rename one of them")
    if not rows:
        raise DataError(f"{source}: has no row below its header ({shown(header)})")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header) if name}
    return Table(columns, [f"line {line}" for line in lines])


def joined(tables: Mapping[str, Table], split_of: Mapping[str, str]) -> Table:
    """Return the rows of several tables, by name, each of one split; a column that one of them lacks is empty there."""
    names = dict.fromkeys(name for table in tables.values() for name in table.columns)
    columns = {
        name: [cell for table in tables.values() for cell in table.columns.get(name, [""] * len(table))]
        for name in names
    }
    return Table(
        columns,
        [f"{name} {place}" for name, table in tables.items() for place in table.places],
        [split_of[name] for name, table in tables.items() for _ in table.places],
    )


def shown(items: Iterable[str]) -> str:
    """Return the first of some texts, and how many more there are."""
    items = list(items)
    more = f" and {len(items) - NAMED:,} more" if len(items) > NAMED else ""
    return ", ".join(item if item.isprintable() else repr(item) for item in items[:NAMED]) + more


def _text(path: Path, source: str) -> str:
    check_regular_file(path, source)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror}); make it readable") from error
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{source}: line {line} is not {error.encoding}; save the table as UTF-8") from error
    if "\0" in text:
        raise DataError(f"{source}: holds NUL characters, so it is no table of text; save it as UTF-8")
    return text


def _csv_rows(text: str, source: str) -> tuple[list[str], list[Sequence[str]], list[int]]:
    """Return the header, the rows, and the line of each row."""
    found = {delimiter: _parse(text, delimiter, source) for delimiter in _delimiters(text, source)}
    whole = [delimiter for delimiter, (header, rows, _) in found.items() if all(len(r) == len(header) for r in rows)]
    if len(found) > 1 and len(whole) != 1:
        names = " and ".join(_DELIMITERS[delimiter] for delimiter in found)
        raise DataError(f"{source}: {names} both divide the header; put cells that hold one of them into quotes")
    header, rows, lines = found[whole[0]] if whole else next(iter(found.values()))
    wrong = [f"line {line} has {len(row)}" for row, line in zip(rows, lines, strict=True) if len(row) != len(header)]
    if wrong:
        raise DataError(
            f"{source}: the header has {len(header)} cells, and {len(wrong):,} rows have others ({shown(wrong)}); put "
            "cells that hold the delimiter into quotes"
        )
    return header, rows, lines


def _delimiters(text: str, source: str) -> list[str]:
    """Return the delimiters that divide the header."""
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    dividing = [delimiter for delimiter in _DELIMITERS if delimiter in first]
    return [d for d in dividing if len(_parse(text, d, source)[0]) > 1] or [","]


def _parse(text: str, delimiter: str, source: str) -> tuple[list[str], list[Sequence[str]], list[int]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, lines = [], []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{source}: line {reader.line_num}: {error}; check its quotes") from error
    if not rows:
        raise DataError(f"{source}: is empty; its first line names the columns, such as file,label")
    return [name.strip() for name in rows[0]], rows[1:], lines[1:]


def _json_lines(text: str, source: str) -> tuple[list[str], list[Sequence[str]], list[int]]:
    objects, lines = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_pairs)
            json.dumps(row, ensure_ascii=False).encode()  # JSON can hold halves of characters, which UTF-8 cannot.
            cells = {name: _cell(value) for name, value in row.items()} if isinstance(row, dict) else None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{source}: line {number} is no JSON ({error}); write one object a line") from error
        if cells is None:
            raise DataError(f'{source}: line {number} is no object such as {{"file": "a.png", "label": "x"}}')
        objects.append(cells)
        lines.append(number)
    header = list(dict.fromkeys(name for cells in objects for name in cells))
    if len(header) * len(objects) > _MOST_EMPTY * len(text):
        raise DataError(f"{source}: {len(objects):,} rows name {len(header):,} columns; give all rows the same keys")
    return header, [[cells.get(name, "") for name in header] for cells in objects], lines


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = {name.strip(): value for name, value in pairs}
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
