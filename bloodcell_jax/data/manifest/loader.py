"""A manifest as a data source: a table that names image files with their labels, splits and groups."""

import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.class_tree import Entry, check_spelling, example_order
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.decoded_files import decode_dataset, is_image, not_images
from bloodcell_jax.data.file_trees import FileTree, example_id, printable
from bloodcell_jax.data.manifest.columns import find_columns, parse_columns, parse_file_pattern
from bloodcell_jax.data.manifest.files import FileFinder, Found, OutsideRoot
from bloodcell_jax.data.manifest.labels import Labels, is_empty, plain_cell, read_labels
from bloodcell_jax.data.manifest.root import open_root
from bloodcell_jax.data.manifest.splits import read_splits, read_tables
from bloodcell_jax.data.manifest.table import NAMED, SUFFIXES, Table, shown
from bloodcell_jax.data.path_patterns import select_paths
from bloodcell_jax.errors import DataError

logger = logging.getLogger(__name__)


class _Example(NamedTuple):
    row: int
    entry: Entry


def load_manifest(place: str, source: str, config: DataConfig) -> Dataset:
    """Read a manifest and the files that it names; see `bloodcell_jax.data.sources.load_source`.

    Examples are ordered by split (train, val, test), then by path in byte order of UTF-8.
    """
    path = Path(os.path.expanduser(place))
    named = parse_columns(config.columns)
    table, manifests = read_tables(path, source, config)
    columns = find_columns(table, named, source)
    pattern = None if config.file_pattern is None else parse_file_pattern(config.file_pattern, table.columns)
    beside = path if os.path.isdir(path) else path.parent
    root = beside if config.root is None else Path(os.path.expanduser(config.root))
    with open_root(root, [*table.columns[columns.file], *([] if pattern is None else [pattern.text])]) as tree:
        finder = FileFinder(tree, root, pattern)
        files = _find_files(table, columns.file, finder, source)
        left_out = _not_named(tree, root, manifests, {file.path for file in files}, source)
        kept = _selected(files, source, config)
        if len(kept) < len(table):
            left_out["by data.include and data.exclude"] = len(table) - len(kept)
        table, files = table.take(kept), [files[i] for i in kept]
        splits = read_splits(table, columns.split, source, config)
        labels = read_labels(table, columns.labels, named.get("class_names"), config.class_names, source)
        groups = None if columns.group is None else _groups(table, columns.group, source)
        unlabeled = _unlabeled(table, labels, source, config)
        missing = _missing(table, files, finder, source, config)
        examples = [
            _Example(i, Entry(splits[i], labels.classes[i], file.path))
            for i, file in enumerate(files)
            if not file.fault and i not in labels.faults
        ]
        if not examples:
            raise DataError(f"{source}: no row has both a file and a label; correct them")
        _check_once(table, examples, source)
        examples.sort(key=lambda example: example_order(example.entry))
        rows = [example.row for example in examples]
        others = table.columns.keys() - columns.used()
        dataset = decode_dataset(
            tree,
            [example.entry for example in examples],
            labels.names,
            source,
            config,
            unreadable=missing,
            left_out=left_out,
            groups=None if groups is None else tuple(groups[i] for i in rows),
            columns={name: tuple(table.columns[name][i] for i in rows) for name in table.columns if name in others},
        )
    return replace(dataset, skipped=dataset.skipped | unlabeled)


def _groups(table: Table, column: str, source: str) -> list[str]:
    groups = list(map(plain_cell, table.columns[column]))
    empty = [place for place, group in zip(table.places, groups, strict=True) if is_empty(group)]
    if empty:
        raise DataError(
            f"{source}: {len(empty):,} of {len(table):,} rows have no group in column {column!r} ({shown(empty)}); a "
            "row of an unknown group could be in two splits: fill in the cells, or remove these rows"
        )
    check_spelling(groups, "groups", source)
    return groups


def _find_files(table: Table, column: str, finder: FileFinder, source: str) -> list[Found]:
    """Return the file of each row.

    Raises:
      DataError: a row names no file, one outside the root, or no number where the pattern wants one.
    """
    files, faults = [], defaultdict(list)
    for i, place in enumerate(table.places):
        cells = {name: cells[i] for name, cells in table.columns.items()} | {"file": table.columns[column][i]}
        if is_empty(cells["file"]):
            faults["name no file"].append(place)
            continue
        try:
            files.append(finder.find(cells))
        except OutsideRoot as error:
            faults["name a file outside the root (data.root)"].append(f"{place}: {error}")
        except ValueError as error:
            faults["do not fit data.file_pattern"].append(f"{place}: {error}")
    for what, named in faults.items():
        raise DataError(f"{source}: {len(named):,} of {len(table):,} rows {what} ({shown(named)}); correct these rows")
    return files


def _selected(files: Sequence[Found], source: str, config: DataConfig) -> list[int]:
    """Return the rows that `data.include` and `data.exclude` leave."""
    selected = set(select_paths([file.path for file in files], source, config))
    return [i for i, file in enumerate(files) if file.path in selected]


def _unlabeled(table: Table, labels: Labels, source: str, config: DataConfig) -> dict[str, str]:
    """Return the rows without a label, place -> reason; refuse them unless `skip_bad` is set."""
    faults = {table.places[i]: reason for i, reason in labels.faults.items()}
    if not faults:
        return {}
    count = f"{len(faults):,} of {len(table):,} rows have no label"
    if config.skip_bad and len(faults) < len(table):
        for place, reason in faults.items():
            logger.warning("%s: %s skipped (%s)", source, place, reason)
        logger.warning("%s: %s and are left out", source, count)
        return faults
    named = shown(f"{place}: {reason}" for place, reason in faults.items())
    remedy = "fill them in, or leave them out with --skip_bad" if len(faults) < len(table) else "name its column"
    raise DataError(f"{source}: {count} ({named}); {remedy}")


def _missing(
    table: Table, files: Sequence[Found], finder: FileFinder, source: str, config: DataConfig
) -> dict[str, str]:
    """Return the rows whose file is not there, path -> reason; refuse them unless `skip_bad` is set."""
    missing = {i: file for i, file in enumerate(files) if file.fault}
    if missing and not (config.skip_bad and len(missing) < len(files)):
        named = shown(f"{table.places[i]}: {printable(file.path)!r}, {file.fault}" for i, file in missing.items())
        advice = finder.advice(next(iter(missing.values())).path)
        more = "" if len(missing) == len(files) else "; --skip_bad leaves these rows out"
        raise DataError(f"{source}: {len(missing):,} of {len(files):,} files are missing ({named}); {advice}{more}")
    return {example_id(file.path): file.fault for file in missing.values()}


def _check_once(table: Table, examples: Sequence[_Example], source: str) -> None:
    """Refuse files that several rows name: their labels may contradict, or they are in two splits."""
    by_path = defaultdict(list)
    for row, entry in examples:
        by_path[entry.path].append((table.places[row], " ".join(filter(None, (entry.split, entry.class_name)))))
    twice = {path: rows for path, rows in by_path.items() if len(rows) > 1}
    if twice:
        unlike = sum(len({what for _, what in rows}) > 1 for rows in twice.values())
        named = shown(
            f"{printable(path)} ({'; '.join(f'{place}: {what}' for place, what in rows[:NAMED])})"
            for path, rows in twice.items()
        )
        raise DataError(
            f"{source}: {len(twice):,} files are named by several rows, {unlike:,} of them with several labels or "
            f"splits: {named}; leave one row for each file"
        )


def _not_named(
    tree: FileTree, root: Path, manifests: Sequence[Path], named: set[PurePosixPath], source: str
) -> dict[str, int]:
    """Return how many files of the root no row names, by kind."""
    own = {path.resolve() for path in manifests}
    others = [
        path
        for path in tree.files
        if path not in named and not (path.suffix.lower() in SUFFIXES and (root / path).resolve() in own)
    ]
    images = sum(map(is_image, others))
    return ({"not named by the manifest": images} if images else {}) | not_images(others, source)
