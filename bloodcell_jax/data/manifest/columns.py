"""What the columns of a manifest mean: `data.columns`, and how `data.file_pattern` makes a path of a row."""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bloodcell_jax.data.manifest.table import Table, shown
from bloodcell_jax.errors import DataError, UsageError

_ROLES = ("file", "label", "split", "group")
_OPTIONAL = ("split", "group")
# Besides a column, `data.columns` may name the table of class names.
_NAMES = "class_names"
_EXAMPLE = "file=new_names,label=labels,group=patient"


@dataclass(frozen=True)
class Columns:
    """Names of the columns by what they mean.

    Attributes:
      file: names the image files.
      labels: one column of labels, or one column of 0 and 1 for each class.
      split, group: None if there is none.
    """

    file: str
    labels: tuple[str, ...]
    split: str | None
    group: str | None

    def used(self) -> set[str]:
        """Return the columns that have a meaning; every other column describes the examples."""
        return {self.file, *self.labels, *(name for name in (self.split, self.group) if name)}


def parse_columns(text: str | None) -> dict[str, str]:
    """Return role -> column of `data.columns`, such as `file=new_names,label=labels,group=patient`.

    An empty column means that the table has none: `split=`.

    Raises:
      UsageError: it is written otherwise.
    """
    named = {}
    for pair in text.split(",") if text else ():
        role, equals, column = (part.strip() for part in pair.partition("="))
        if role not in (*_ROLES, _NAMES) or not equals or role in named or not (column or role in _OPTIONAL):
            raise UsageError(
                f"config.data.columns={text}: write ROLE=COLUMN pairs such as {_EXAMPLE}; the roles are "
                f"{', '.join(_ROLES)}, and {_NAMES}=PATH is a table of labels and their names"
            )
        named[role] = column
    return named


def find_columns(table: Table, named: Mapping[str, str], source: str) -> Columns:
    """Return the columns of a table by their meaning; those that nobody named are `file`, `label`, `split`, `group`.

    Raises:
      DataError: a column is missing, or has two meanings.
    """
    label = named.get("label", "label")
    one_hot = "+" in label and label not in table.columns
    columns = Columns(
        file=_required(table, "file", named, source),
        labels=tuple(_required(table, "label", {"label": name.strip()}, source) for name in label.split("+"))
        if one_hot
        else (_required(table, "label", named, source),),
        split=_find(table, "split", named, source),
        group=_find(table, "group", named, source),
    )
    names = [columns.file, *columns.labels, columns.split, columns.group]
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise DataError(f"{source}: column {twice[0]!r} is named twice by data.columns; give it one meaning")
    return columns


def _required(table: Table, role: str, named: Mapping[str, str], source: str) -> str:
    """Return the column of a role that every manifest has."""
    column = _find(table, role, named, source)
    if column is None:
        raise _no_column(table, role, source)
    return column


def _find(table: Table, role: str, named: Mapping[str, str], source: str) -> str | None:
    """Return the column of a role: the exact name that the user gave, else the one that differs by case only."""
    name = named.get(role, role)
    if not name or (role in named and name in table.columns):
        return name or None
    alike = [column for column in table.columns if column.casefold() == name.casefold()]
    if len(alike) > 1:
        raise DataError(
            f"{source}: columns {shown(alike)} differ by case only; say which by data.columns={role}=COLUMN"
        )
    if not alike and role in named:
        raise _no_column(table, name, source)
    return alike[0] if alike else None


def _no_column(table: Table, name: str, source: str) -> DataError:
    return DataError(
        f"{source}: no column {name!r}; the first line names {shown(table.columns)}. Name the columns by data.columns, "
        f"such as {_EXAMPLE}"
    )


class _Piece(NamedTuple):
    literal: str
    field: str | None
    digits: int | None  # of a number that is filled with zeros; None: text


@dataclass(frozen=True)
class FilePattern:
    """`data.file_pattern`: the path of a row's file, with the values of columns in braces.

    Attributes:
      text: as the user wrote it.
      pieces: literal text, each with the field behind it.
    """

    text: str
    pieces: tuple[_Piece, ...]

    def path(self, cells: Mapping[str, str]) -> str:
        """Return the path of a row; it holds the pattern's `*` as they are.

        Raises:
          ValueError: a cell that should be a number is none.
        """
        return "".join(piece.literal + _filled(piece, cells) for piece in self.pieces)

    def matches(self, cells: Mapping[str, str]) -> re.Pattern[str]:
        """Return what the whole path matches: `*` stands for one folder, `**/` for any folders."""
        wild = {"**/": "(?:.*/)?", "*": "[^/]*"}
        parts = []
        for piece in self.pieces:
            parts += [wild.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*)", piece.literal)]
            parts.append(re.escape(_filled(piece, cells)))
        return re.compile("".join(parts), re.DOTALL)

    @property
    def is_wild(self) -> bool:
        """Return whether it holds `*`, so that the file is looked for."""
        return any("*" in piece.literal for piece in self.pieces)


def parse_file_pattern(text: str, columns: Mapping[str, object]) -> FilePattern:
    """Read `data.file_pattern`; only names of columns and widths such as `03d` stand in braces.

    Raises:
      UsageError: it is written otherwise, or names no column of the table.
    """
    pieces = []
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise _bad_pattern(text, str(error)) from error
    for literal, field, spec, conversion in parsed:
        if conversion or (spec and not re.fullmatch(r"0?[1-9]?\d?d", spec)):
            raise _bad_pattern(text, f"{{{field}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}")
        if field is not None and field != "file" and field not in columns:
            raise _bad_pattern(text, f"no column {field!r}; the columns are {shown(columns)}")
        pieces.append(_Piece(literal, field, int(spec[:-1] or 0) if spec else None))
    pattern = FilePattern(text, tuple(pieces))
    if not any(piece.field == "file" for piece in pieces):
        raise _bad_pattern(text, "{file} is missing")
    name = "".join(piece.literal + "{}" * (piece.field is not None) for piece in pieces).rpartition("/")[2]
    if "*" in name or "{}" not in name:
        raise _bad_pattern(text, "the last part is the name of the file, without *")
    return pattern


def _bad_pattern(text: str, reason: str) -> UsageError:
    return UsageError(
        f"config.data.file_pattern={text}: {reason}; write a path such as {{file}}.jpg, {{file:03d}}.bmp or **/{{file}}"
    )


def _filled(piece: _Piece, cells: Mapping[str, str]) -> str:
    if piece.field is None:
        return ""
    cell = cells[piece.field].strip()
    if piece.digits is None:
        return cell
    if not re.fullmatch(r"[0-9]{1,18}(\.0*)?", cell):
        raise ValueError(f"{cell!r} is no whole number")
    return f"{int(cell.partition('.')[0]):0{piece.digits}d}"
