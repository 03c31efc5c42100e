"""Data sets of TensorFlow Datasets, without TensorFlow: preparing any source into one, and reading any that is there.

Only array_record can be read at random places, and so without TensorFlow.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.data.dataset import SPLITS, Dataset
from bloodcell_jax.data.example_index import ExampleIndex, Names
from bloodcell_jax.data.stored_images import DECODING_THREADS, StoredImages, damage_named
from bloodcell_jax.download import cache_folder
from bloodcell_jax.errors import DataError, MachineError, UsageError

logger = logging.getLogger(__name__)

# TFDS's names of the splits -> ours. A source without splits is prepared as one split that is none of these.
SPLIT_NAMES = {"train": "train", "validation": "val", "val": "val", "test": "test"}
# Beside the records of a set that `prepare` wrote: labels and ids, so that opening it reads no record.
INDEX_NAME = "index.npz"
_RECORDS_AT_A_TIME = 256
# At most; a read takes time in proportion to its shard's records: 27 ms of one of 1,400,000, 35 us of one of 20,000.
_RECORDS_PER_SHARD, _SHARD_BYTES = 2**14, 2**30


def prepare(dataset: Dataset, data_dir: str | Path, name: str) -> str:
    """Write a dataset as the TFDS data set `blood_cells/NAME` in array_record; the same again is left as it is.

    It appears whole or not at all. What an interrupted run left is deleted.

    Args:
      name: letters, digits, `_`, `-` and `.`; a published one (pbc, bloodmnist, ...) brings citation and licence.

    Returns:
      What `tfds:` takes to read it: `blood_cells/NAME`.

    Raises:
      UsageError: the name cannot be used, or stands for other data already.
      MachineError: it cannot be written.
    """
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise UsageError(f"--name={name}: give letters, digits, _, - and . only")
    full_name = f"blood_cells/{name}"
    data_dir = Path(data_dir).expanduser()
    # Beside the data sets, so that it is renamed and not copied.
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
        raise MachineError(f"--data_dir={data_dir}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return full_name


def _write_records(dataset: Dataset, name: str, data_dir: Path) -> Path:
    """Write the records of every split one after the other and return their folder.

    TFDS's own way to prepare keeps up to a gigabyte of them in memory to shuffle, also where they are not to be
    shuffled, and needs TensorFlow for what exceeds it.
    """
    tfds = _import_tfds()
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


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal; yields what moves it."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("preparing", total=total)
        yield lambda count: bar.advance(task, count)


def default_name(source: str) -> str:
    """Return what a source is called where no name was given: that of its file, folder or published set."""
    kind, _, place = source.partition(":")
    stem = Path(place or kind).stem if kind != "synthetic" else f"synthetic_{place}"
    return re.sub(r"[^\w.-]+", "_", stem.removesuffix(".tar"), flags=re.ASCII).strip("_.-") or "cells"


def _check_same(dataset: Dataset, data_dir: Path, full_name: str) -> None:
    # What is on the disk; a builder at hand describes what it would write.
    found = _open(full_name, data_dir, full_name).info.metadata["sha256"]
    if found != dataset.sha256():
        raise UsageError(
            f"{full_name}: other data are prepared under this name (sha256 {found[:12]}, now "
            f"{dataset.sha256()[:12]}); give another --name, or delete {data_dir / full_name}"
        )


def _write_index(dataset: Dataset, folder: Path) -> None:
    """Write the index beside the records, in the order in which they are read again."""
    order = np.concatenate([dataset.splits[name] for name in SPLITS if name in dataset.splits] or [range(len(dataset))])
    ids = dataset.ids if (order == np.arange(len(order))).all() else [dataset.ids[i] for i in order]
    ExampleIndex(dataset.labels[order], Names.of(ids)).save(folder / INDEX_NAME)


def _check_space(dataset: Dataset, data_dir: Path) -> None:
    """Refuse before an hour is spent: an image as PNG is at most as large as its pixels."""
    data_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(data_dir).free
    if free < dataset.images.nbytes:
        raise MachineError(
            f"--data_dir={data_dir}: {free / 2**30:.1f} GiB free, up to {dataset.images.nbytes / 2**30:.1f} GiB needed"
        )


def load_tfds(
    name: str, source: str, *, image_size: int, class_names: tuple[str, ...], data_dir: str | None
) -> Dataset:
    """Open a prepared image-classification data set by name; see `bloodcell_jax.data.sources.load_source`.

    Its images stay on the disk. Labels and ids come from the index that `prepare` wrote; of a set that others
    prepared they are read once, and kept in the user's cache.

    Args:
      name: as TFDS writes it: `NAME`, `NAME/CONFIG` or `NAME/CONFIG:VERSION`.
      data_dir: where it was prepared; None: TFDS's own place, `~/tensorflow_datasets`.
    """
    builder = _open(name, data_dir, source)
    info = builder.info
    image_key, label_key = _find_features(info.features, info.supervised_keys, source)
    names = class_names or tuple(info.features[label_key].names)
    if len(names) != info.features[label_key].num_classes:
        raise DataError(
            f"{source}: has the classes {', '.join(info.features[label_key].names)}; data.class_names has {len(names)}"
        )
    parts = [_Records(builder, split, image_key, label_key, source) for split in _in_order(list(info.splits))]
    fingerprint = _fingerprint(builder, source)
    index = _example_index(parts, Path(info.data_dir), fingerprint, source)
    if len(index.labels) and index.labels.min() < 0:
        raise DataError(f"{source}: some examples have no label, as unlabeled test splits have")
    metadata = info.metadata or {}
    ends = np.cumsum([len(part) for part in parts])
    return Dataset(
        images=StoredImages(parts, image_size, source, fingerprint),
        labels=index.labels,
        class_names=names,
        ids=index.ids,
        source=source,
        splits={
            SPLIT_NAMES[part.name]: np.arange(end - len(part), end, dtype=np.int32)
            for part, end in zip(parts, ends, strict=True)
            if part.name in SPLIT_NAMES
        },
        skipped=dict(metadata.get("skipped", {})),
        # Of the images as they were prepared.
        known_sha256=metadata.get("sha256") if info.features[image_key].shape[0] == image_size else None,
    )


class _Records:
    """The records of one split, read at random places: encoded images, or what else is known of them."""

    def __init__(self, builder: Any, split: str, image_key: str, label_key: str, source: str):
        self.name, self._image_key, self._label_key = split, image_key, label_key
        encoded = {image_key: _import_tfds().decode.SkipDecoding()}
        try:
            with damage_named(source):
                self._records = builder.as_data_source(split, decoders=encoded)
        except DataError as error:
            if not isinstance(error.__cause__, NotImplementedError):
                raise
            file_format = builder.info.file_format.value
            raise DataError(
                f"{source}: prepared as {file_format}; prepare it again with file_format=array_record"
            ) from error

    def __len__(self) -> int:
        return len(self._records)

    def __getitems__(self, numbers: list[int]) -> list[bytes]:
        return [record[self._image_key] for record in self._records.__getitems__(numbers)]

    def describe(self, numbers: list[int]) -> list[tuple[int, str | None]]:
        """Return labels and ids; None for the id of examples that have none."""
        return [
            (int(record[self._label_key]), _text(record["id"]) if "id" in record else None)
            for record in self._records.__getitems__(numbers)
        ]


def _fingerprint(builder: Any, source: str) -> str:
    """Return what changes with the data set's files."""
    with damage_named(source):
        files = sorted(Path(builder.info.data_dir).glob("*.array_record*"))
        states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return json.dumps([str(builder.info.data_dir), states])


def _example_index(parts: list[_Records], folder: Path, fingerprint: str, source: str) -> ExampleIndex:
    """Return the index of a data set: the one beside its records, the one in the user's cache, or a new one there."""
    count = sum(map(len, parts))
    kept = cache_folder("data") / "indices" / f"{hashlib.sha256(fingerprint.encode()).hexdigest()[:32]}.npz"
    for path in (folder / INDEX_NAME, kept):
        if (index := ExampleIndex.load(path, count)) is not None:
            return index
    logger.info("%s: reading the labels of %s examples; the next start finds them in %s", source, f"{count:,}", kept)
    index = _read_index(parts, source)
    # A cache that cannot be written costs time alone.
    with contextlib.suppress(OSError):
        index.save(kept)
    return index


def _read_index(parts: list[_Records], source: str) -> ExampleIndex:
    rows = []
    with damage_named(source), ThreadPoolExecutor(DECODING_THREADS) as pool:
        for part in parts:
            starts = range(0, len(part), _RECORDS_AT_A_TIME)
            numbers = (list(range(start, min(start + _RECORDS_AT_A_TIME, len(part)))) for start in starts)
            rows += [row for some in pool.map(part.describe, numbers) for row in some]
    ids = [str(i) if name is None else name for i, (_, name) in enumerate(rows)]
    return ExampleIndex(np.array([label for label, _ in rows], np.int32), Names.of(ids))


def _in_order(splits: list[str]) -> list[str]:
    """Return the splits to read: train, val, test where the data set has train, else all it has."""
    named = [name for name in SPLIT_NAMES if name in splits]
    return named if "train" in named else splits


def _import_tfds() -> Any:
    """Import TFDS, quiet but for its bars on a terminal."""
    import tensorflow_datasets as tfds

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    return tfds


def _open(name: str, data_dir: str | os.PathLike | None, source: str) -> Any:
    tfds = _import_tfds()
    from tensorflow_datasets.core import read_only_builder

    place = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    try:
        return read_only_builder.builder_from_files(name, data_dir=place)
    except (tfds.core.DatasetNotFoundError, ValueError, OSError, KeyError) as error:
        folders = [path.name for path in place.iterdir() if path.is_dir()] if place.is_dir() else []
        there = sorted(name for name in folders if name != "downloads" and not name.startswith("."))
        raise DataError(
            f"{source}: not prepared in {place}, which has {', '.join(there) or 'no data sets'}; set data.data_dir, or "
            "make it with bloodcell prepare"
        ) from error


def _find_features(features: Any, supervised: Any, source: str) -> tuple[str, str]:
    """Return the names of the image and the label among a data set's features."""
    tfds = _import_tfds()
    kinds = {tfds.features.Image: [], tfds.features.ClassLabel: []}
    preferred = [key for key in supervised or () if isinstance(key, str) and key in features]
    for key in dict.fromkeys([*preferred, *features]):
        for kind, keys in kinds.items():
            if isinstance(features[key], kind):
                keys.append(key)
    if not all(kinds.values()):
        raise DataError(f"{source}: has no image with a class ({', '.join(features)}); it is no image classification")
    return tuple(keys[0] for keys in kinds.values())


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
