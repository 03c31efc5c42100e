"""Preparing: any source is written as a dataset of TensorFlow Datasets (TFDS), without TensorFlow."""

import contextlib
import itertools
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.data.dataset import SPLITS, Dataset
from bloodcell_jax.data.example_index import ExampleIndex, Names
from bloodcell_jax.data.grouping import digest_of
from bloodcell_jax.data.tfds_reader import INDEX_NAME, import_tfds, open_builder
from bloodcell_jax.errors import MachineError, UsageError

logger = logging.getLogger(__name__)

_RECORDS_AT_A_TIME = 256
# Upper limits. The time of a read grows with the records of its shard: 27 ms with 1,400,000 records, 35 us with 20,000.
_RECORDS_PER_SHARD, _SHARD_BYTES = 2**14, 2**30


def prepare(dataset: Dataset, data_dir: str | Path, name: str) -> str:
    """Write a dataset as the TFDS dataset `blood_cells/NAME` in array_record.

    The dataset appears whole or not at all. Leftovers of an interrupted run are deleted. If the same data are already
    prepared under this name, nothing changes. The groups of the dataset are kept, its other columns are not.

    Args:
      dataset: the examples.
      data_dir: folder of prepared datasets; it is made if it does not exist.
      name: letters, digits, `_`, `-` and `.`; a published name (pbc, bloodmnist, ...) adds citation and license.

    Returns:
      The name that `tfds:` reads it by: `blood_cells/NAME`.

    Raises:
      UsageError: the name cannot be used, or other data are prepared under it.
      MachineError: the dataset cannot be written.
    """
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise UsageError(f"--name={name}: give only letters, digits, _, - and .")
    full_name = f"blood_cells/{name}"
    data_dir = Path(os.path.expanduser(data_dir))
    # This folder lies beside the datasets, so that the finished dataset is renamed, not copied.
    unfinished = data_dir / f".{name}.incomplete"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        if any((data_dir / full_name).glob("*/dataset_info.json")):
            _check_same(dataset, data_dir, full_name)
            logger.info("%s: already prepared in %s", full_name, data_dir)
            return full_name
        _check_space(dataset, data_dir)
        logger.info("%s: preparing %s images in %s", full_name, f"{len(dataset):,}", data_dir)
        folder = _write_records(dataset, name, unfinished)
        _write_index(dataset, folder)
        target = data_dir / folder.relative_to(unfinished)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
    except OSError as error:
        raise MachineError(
            f"--data_dir={data_dir}: cannot be written ({error.strerror or error}); name another folder"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return full_name


def default_name(source: str) -> str:
    """Return the name of a source that the user did not name: that of its file, folder or published set."""
    kind, _, place = source.partition(":")
    stem = Path(place or kind).stem if kind != "synthetic" else f"synthetic_{place}"
    return re.sub(r"[^\w.-]+", "_", stem.removesuffix(".tar"), flags=re.ASCII).strip("_.-") or "cells"


def _check_same(dataset: Dataset, data_dir: Path, full_name: str) -> None:
    # The builder that writes would describe what it is about to write, so the dataset on the disk is opened.
    info = open_builder(full_name, data_dir, full_name).info
    metadata = info.metadata
    found = metadata["sha256"]
    if found != dataset.sha256():
        raise UsageError(
            f"{full_name}: other data are prepared under this name (sha256 {found[:12]}, now "
            f"{dataset.sha256()[:12]}); give another --name, or delete {data_dir / full_name}"
        )
    # The hash knows labels as numbers, and no splits.
    names = tuple(info.features["label"].names)
    if names != dataset.class_names:
        raise UsageError(
            f"{full_name}: the same images with other names of the classes are prepared under this name "
            f"({', '.join(names)}; now {', '.join(dataset.class_names)}); give another --name, or delete "
            f"{data_dir / full_name}"
        )
    if not _has_splits(dataset, info):
        sizes = ", ".join(f"{name} {split.num_examples:,}" for name, split in info.splits.items())
        now = ", ".join(f"{name} {len(indices):,}" for name, indices in dataset.splits.items()) or "none"
        raise UsageError(
            f"{full_name}: the same images in other splits are prepared under this name ({sizes}; now {now}); give "
            f"another --name, or delete {data_dir / full_name}"
        )
    if metadata.get("groups_sha256") != digest_of(dataset.groups):
        raise UsageError(
            f"{full_name}: the same images with other groups, or with none, are prepared under this name; give another "
            f"--name, or delete {data_dir / full_name}"
        )
    now = dataset.file_geometry and dataset.file_geometry.to_json()
    if metadata.get("file_geometry") != now:
        raise UsageError(
            f"{full_name}: the same images, cut from files in another way, are prepared under this name "
            f"({metadata.get('file_geometry')}, now {now}); give another --name, or delete {data_dir / full_name}"
        )


def _has_splits(dataset: Dataset, info: Any) -> bool:
    """Return whether a prepared dataset has the same examples in the same splits, by the index beside its records."""
    sizes = {name: len(indices) for name, indices in dataset.splits.items()}
    prepared = {name: split.num_examples for name, split in info.splits.items() if name in SPLITS}
    if sizes != prepared:
        return False
    index = ExampleIndex.load(Path(info.data_dir) / INDEX_NAME, len(dataset))
    return index is None or all(dataset.ids[int(i)] == name for i, name in zip(_order(dataset), index.ids, strict=True))


def _check_space(dataset: Dataset, data_dir: Path) -> None:
    """Check the free space before an hour is spent: as PNG, an image is at most as large as its pixels."""
    data_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(data_dir).free
    if free < dataset.images.nbytes:
        raise MachineError(
            f"--data_dir={data_dir}: {free / 2**30:.1f} GiB free, up to {dataset.images.nbytes / 2**30:.1f} GiB "
            "needed; free some or name another folder"
        )


def _write_records(dataset: Dataset, name: str, data_dir: Path) -> Path:
    """Write the records of every split one after the other, and return their folder.

    TFDS's own way to prepare keeps up to a gigabyte of records in memory to shuffle them, even if they are not to be
    shuffled. Beyond a gigabyte it needs TensorFlow.
    """
    tfds = import_tfds()
    from bloodcell_jax.data.blood_cells.blood_cells_dataset_builder import Builder

    builder = Builder(data=dataset, config=name, data_dir=data_dir, file_format="array_record")
    folder = Path(builder.info.data_dir)
    folder.mkdir(parents=True)
    per_shard = max(1, min(_RECORDS_PER_SHARD, _SHARD_BYTES * len(dataset) // dataset.images.nbytes))
    writer = tfds.core.SequentialWriter(builder.info, per_shard, file_format="array_record")
    examples = builder.examples()
    writer.initialize_splits(list(examples))
    with _progress(len(dataset)) as advance:
        for split, rows in examples.items():
            while some := list(itertools.islice(rows, _RECORDS_AT_A_TIME)):
                writer.add_examples({split: some})
                advance(len(some))
    writer.close_all()
    return folder


def _write_index(dataset: Dataset, folder: Path) -> None:
    """Write the index beside the records, in the order in which they are read again."""
    order = _order(dataset)
    ids, groups = dataset.ids, dataset.groups
    if (order != np.arange(len(order))).any():
        ids = [ids[int(i)] for i in order]
        groups = None if groups is None else tuple(groups[int(i)] for i in order)
    ExampleIndex(dataset.labels[order], Names.of(ids), groups).save(folder / INDEX_NAME)


def _order(dataset: Dataset) -> np.ndarray:
    """Return the indices of the examples in the order in which they are read again, int [n]."""
    return np.concatenate([dataset.splits[name] for name in SPLITS if name in dataset.splits] or [range(len(dataset))])


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal; yields the function that advances it."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("preparing", total=total)
        yield lambda count: bar.advance(task, count)
