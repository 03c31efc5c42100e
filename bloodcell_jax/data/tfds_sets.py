"""Data sets of TensorFlow Datasets, without TensorFlow: preparing any source into one, and reading any that is there.

Only array_record can be read at random places, and so without TensorFlow.
"""

import contextlib
import io
import logging
import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bloodcell_jax.data import pictures
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.errors import DataError, MachineError, UsageError

logger = logging.getLogger(__name__)

# TFDS's names of the splits -> ours. A source without splits is prepared as one split that is none of these.
SPLIT_NAMES = {"train": "train", "validation": "val", "val": "val", "test": "test"}
DECODING_THREADS = 8
_RECORDS_AT_A_TIME = 256


def prepare(dataset: Dataset, data_dir: str | Path, name: str) -> str:
    """Write a dataset as the TFDS data set `blood_cells/NAME` in array_record; the same again is left as it is.

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
    tfds = _import_tfds()
    from bloodcell_jax.data.blood_cells.blood_cells_dataset_builder import Builder

    data_dir = Path(data_dir).expanduser()
    try:
        builder = Builder(data=dataset, config=name, data_dir=data_dir, file_format="array_record")
        if builder.is_prepared():
            _check_same(dataset, data_dir, full_name)
            logger.info("%s: already prepared in %s", full_name, data_dir)
            return full_name
        _check_space(dataset, data_dir)
        logger.info("%s: preparing %s pictures in %s", full_name, f"{len(dataset):,}", data_dir)
        with contextlib.redirect_stdout(None):  # it tells of a download of unknown size
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except OSError as error:
        raise MachineError(f"--data_dir={data_dir}: cannot be written ({error.strerror or error})") from error
    return full_name


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


def _check_space(dataset: Dataset, data_dir: Path) -> None:
    """Refuse before an hour is spent: a picture as PNG is at most as large as its pixels."""
    data_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(data_dir).free
    if free < dataset.images.nbytes:
        raise MachineError(
            f"--data_dir={data_dir}: {free / 2**30:.1f} GiB free, up to {dataset.images.nbytes / 2**30:.1f} GiB needed"
        )


def load_tfds(
    name: str, source: str, *, image_size: int, class_names: tuple[str, ...], data_dir: str | None
) -> Dataset:
    """Read a prepared image-classification data set by name; see `bloodcell_jax.data.sources.load_source`.

    Args:
      name: as TFDS writes it: `NAME`, `NAME/CONFIG` or `NAME/CONFIG:VERSION`.
      data_dir: where it was prepared; None: TFDS's own place, `~/tensorflow_datasets`.
    """
    builder = _open(name, data_dir, source)
    image_key, label_key = _find_features(builder.info.features, builder.info.supervised_keys, source)
    names = class_names or tuple(builder.info.features[label_key].names)
    if len(names) != builder.info.features[label_key].num_classes:
        raise DataError(
            f"{source}: has the classes {', '.join(builder.info.features[label_key].names)}; data.class_names has "
            f"{len(names)}"
        )
    wanted = {split: builder.info.splits[split].num_examples for split in _in_order(list(builder.info.splits))}
    images = np.empty((sum(wanted.values()), image_size, image_size, 3), np.uint8)
    splits, labels, ids = {}, [], []
    for split, count in wanted.items():
        start = len(labels)
        rows = _read_split(builder, split, image_key, label_key, images[start : start + count], source)
        labels += [label for label, _ in rows]
        ids += [name for _, name in rows]
        if split in SPLIT_NAMES:
            splits[SPLIT_NAMES[split]] = np.arange(start, start + count, dtype=np.int32)
    if labels and min(labels) < 0:
        raise DataError(f"{source}: some examples have no label, as unlabelled test splits have")
    has_ids = "id" in builder.info.features
    return Dataset(
        images=images,
        labels=np.array(labels, np.int32),
        class_names=names,
        ids=tuple(ids) if has_ids else tuple(map(str, range(len(labels)))),
        source=source,
        splits=splits,
        skipped=dict((builder.info.metadata or {}).get("skipped", {})),
    )


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
        there = sorted(set(folders) - {"downloads"})
        raise DataError(
            f"{source}: not prepared in {place}, which has {', '.join(there) or 'no data sets'}; set data.data_dir, or "
            "make it with bloodcell prepare"
        ) from error


def _find_features(features: Any, supervised: Any, source: str) -> tuple[str, str]:
    """Return the names of the picture and the label among a data set's features."""
    tfds = _import_tfds()
    kinds = {tfds.features.Image: [], tfds.features.ClassLabel: []}
    preferred = [key for key in supervised or () if isinstance(key, str) and key in features]
    for key in dict.fromkeys([*preferred, *features]):
        for kind, keys in kinds.items():
            if isinstance(features[key], kind):
                keys.append(key)
    if not all(kinds.values()):
        raise DataError(f"{source}: has no picture with a class ({', '.join(features)}); it is no image classification")
    return tuple(keys[0] for keys in kinds.values())


def _read_split(
    builder: Any, split: str, image_key: str, label_key: str, images: np.ndarray, source: str
) -> list[tuple[int, str]]:
    """Read the pictures of one split into uint8 [n, h, w, 3] and return their labels and ids, in its order."""
    tfds = _import_tfds()
    try:
        records = builder.as_data_source(split, decoders={image_key: tfds.decode.SkipDecoding()})
    except NotImplementedError as error:
        raise DataError(
            f"{source}: prepared as {builder.info.file_format.value}; prepare it again with file_format=array_record"
        ) from error

    def read(start: int) -> list[tuple[int, str]]:
        rows = []
        numbers = range(start, min(start + _RECORDS_AT_A_TIME, len(records)))
        for i, record in zip(numbers, records.__getitems__(list(numbers)), strict=True):
            images[i] = _decode(record[image_key], images.shape[1], f"{source}: example {i} of {split}")
            rows.append((int(record[label_key]), _text(record.get("id", b""))))
        return rows

    try:
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            return [row for part in pool.map(read, range(0, len(records), _RECORDS_AT_A_TIME)) for row in part]
    except (RuntimeError, ValueError, LookupError, OSError) as error:
        raise DataError(f"{source}: its files are damaged ({error}); prepare it again") from error


def _decode(content: bytes, image_size: int, name: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return pictures.resize_arrays(np.asarray(pictures.to_rgb(picture, picture.format))[None], image_size)[0]
    except Exception as error:  # Pillow's decoders raise nearly everything on malformed files.
        raise DataError(f"{name} cannot be read ({error}); prepare it again") from error


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
