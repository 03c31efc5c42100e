"""The splits of a manifest: a column of the table, or a folder that holds one table for each split."""

import os
from collections import Counter
from pathlib import Path, PurePosixPath

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.class_tree import parse_split_folders, splits_of
from bloodcell_jax.data.manifest.labels import is_empty
from bloodcell_jax.data.manifest.table import SUFFIXES, Table, joined, read_table, shown
from bloodcell_jax.data.path_patterns import matches_any, patterns_of
from bloodcell_jax.errors import DataError


def read_tables(path: Path, source: str, config: DataConfig) -> tuple[Table, list[Path]]:
    """Return the rows of one table, or of a folder with one for each split, and the files that they are from.

    The tables of a folder are splits by their usual names in any case, or by `data.split_folders`.

    Raises:
      DataError: a table of the folder is no split, or two are the same split and nobody named them.
    """
    if not os.path.isdir(path):
        return read_table(path, source), [path]
    exclude = patterns_of(config.exclude)
    names = sorted(
        entry.name
        for entry in path.iterdir()
        if entry.suffix.lower() in SUFFIXES
        and not entry.name.startswith(".")
        and not matches_any(PurePosixPath(entry.name), exclude)
    )
    if not names:
        raise DataError(f"{source}: holds no table ({', '.join(SUFFIXES)}); give csv:PATH of a table")
    named = parse_split_folders(config.split_folders)
    if absent := sorted(set(named) - set(names)):
        raise DataError(f"{source}: data.split_folders names {shown(absent)}; the tables are {shown(names)}")
    usual = splits_of([Path(name).stem for name in names], named)
    split_of = {name: usual[Path(name).stem] for name in names if Path(name).stem in usual} | named
    _check_tables(names, split_of, named, source)
    tables = {name: read_table(path / name, f"{source}/{name}") for name in names}
    return joined(tables, split_of), [path / name for name in names]


def _check_tables(names: list[str], split_of: dict[str, str], named: dict[str, str], source: str) -> None:
    others = [name for name in names if name not in split_of]
    if others:
        raise DataError(
            f"{source}: the tables {shown(others)} are no splits by their names; name them, such as "
            f"data.split_folders=train={others[0]}, or leave them out: data.exclude='{others[0]}'"
        )
    counts = Counter(split_of[name] for name in names if name not in named)
    if twice := [split for split, count in counts.items() if count > 1]:
        same = [name for name in names if split_of[name] == twice[0]]
        raise DataError(f"{source}: {shown(same)} are all {twice[0]}; leave one out: data.exclude='{same[-1]}'")


def read_splits(table: Table, column: str | None, source: str, config: DataConfig) -> list[str]:
    """Return the split of each row, empty if the manifest has none.

    Raises:
      DataError: a value of the column is no split, is empty, or contradicts the table's own; or train is missing.
    """
    splits = table.splits
    if column is not None and not all(map(is_empty, table.columns[column])):
        said = _of_column(table, column, source, {} if splits else parse_split_folders(config.split_folders))
        other = [table.places[i] for i, split in enumerate(splits or said) if split != said[i]]
        if other:
            raise DataError(
                f"{source}: {len(other):,} rows are in another split by column {column!r} than by their table "
                f"({shown(other)}); correct one of them"
            )
        splits = said
    if splits is None:
        if config.split_folders is not None:
            raise DataError(
                f"{source}: data.split_folders={config.split_folders}: it has no column of splits; name one by "
                "data.columns=split=COLUMN, or leave split_folders out"
            )
        return [""] * len(table)
    if "train" not in splits:
        raise DataError(
            f"{source}: its splits are {shown(dict.fromkeys(splits))}, without train; name it by "
            "data.split_folders=train=NAME, or read one table without splits: data.columns=split="
        )
    return splits


def _of_column(table: Table, column: str, source: str, named: dict[str, str]) -> list[str]:
    cells = [cell.strip() for cell in table.columns[column]]
    if empty := [table.places[i] for i, cell in enumerate(cells) if is_empty(cell)]:
        raise DataError(
            f"{source}: {len(empty):,} of {len(table):,} rows have no split in column {column!r} ({shown(empty)}); "
            "fill in all cells or none"
        )
    split_of = splits_of(set(cells), named)
    if absent := sorted(set(named) - set(cells)):
        raise DataError(
            f"{source}: data.split_folders names {shown(absent)}; column {column!r} has {shown(set(cells))}"
        )
    if unknown := Counter(cell for cell in cells if cell not in split_of):
        counts = shown(f"{name} ({count:,} rows)" for name, count in unknown.most_common())
        raise DataError(
            f"{source}: column {column!r} holds other values than splits: {counts}; name the splits, such as "
            f"data.split_folders=train={next(iter(unknown))}"
        )
    return [split_of[cell] for cell in cells]
