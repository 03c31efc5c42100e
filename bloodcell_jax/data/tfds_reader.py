"""Reading prepared datasets of TensorFlow Datasets (TFDS), without TensorFlow.

Only array_record can be read at random places, and therefore without TensorFlow.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.config import DataConfig, as_text
from bloodcell_jax.config.data import SCALE
from bloodcell_jax.data.class_order import in_given_order
from bloodcell_jax.data.class_tree import splits_of
from bloodcell_jax.data.dataset import SPLITS, Dataset
from bloodcell_jax.data.decoding_pool import DECODING_THREADS, map_ahead
from bloodcell_jax.data.example_index import ExampleIndex, Names
from bloodcell_jax.data.geometry import FileGeometry
from bloodcell_jax.data.stored_images import StoredImages, damage_named
from bloodcell_jax.data.tfds_files import check_prepared_files
from bloodcell_jax.download import cache_folder
from bloodcell_jax.errors import DataError, MachineError

logger = logging.getLogger(__name__)

# Labels and ids, beside the records of a dataset that `bloodcell prepare` wrote: opening it then reads no record.
INDEX_NAME = "index.npz"
_RECORDS_AT_A_TIME = 256


def load_tfds(place: str, source: str, config: DataConfig) -> Dataset:
    """Open a prepared image-classification dataset by name; see `bloodcell_jax.data.sources.load_source`.

    The images stay on the disk. Labels, ids and groups come from the index that `prepare` wrote. If another tool
    prepared the dataset, they are read once and kept in the user's cache.

    Args:
      place: the dataset's name as TFDS writes it: `NAME`, `NAME/CONFIG` or `NAME/CONFIG:VERSION`.
      source: the whole source, for messages.
      config: how it is read. `data_dir` is the folder that it was prepared in; None: TFDS's own,
        `~/tensorflow_datasets`.
    """
    builder = open_builder(place, config.data_dir, source)
    info = builder.info
    image_key, label_key = _find_features(info.features, info.supervised_keys, source)
    stored_names = tuple(info.features[label_key].names)
    to_read, left_out = _in_order(info.splits, source)
    parts = [_Records(builder, split, image_key, label_key, source) for split in to_read]
    fingerprint = _fingerprint(builder, to_read, source)
    index = _example_index(parts, Path(info.data_dir), fingerprint, source)
    if len(index.labels) and index.labels.min() < 0:
        raise DataError(
            f"{source}: {(index.labels < 0).sum():,} examples have no label, as in unlabeled test splits; prepare it "
            "without them"
        )
    if len(index.labels) and index.labels.max() >= len(stored_names):
        raise DataError(f"{source}: label {index.labels.max()} is of no class; its files are damaged, prepare it again")
    labels, names = in_given_order(index.labels, stored_names, config.class_names, source)
    metadata = info.metadata or {}
    file_geometry = _file_geometry(metadata, config, source)
    as_prepared = labels is index.labels and info.features[image_key].shape[0] == config.image_size
    return Dataset(
        images=StoredImages(parts, config.image_size, source, fingerprint),
        labels=labels,
        class_names=names,
        ids=index.ids,
        source=source,
        splits=_splits(parts),
        file_geometry=file_geometry,
        groups=index.groups,
        skipped=dict(metadata.get("skipped", {})),
        left_out=left_out,
        # The hash is that of the images and labels as they were prepared.
        known_sha256=metadata.get("sha256") if as_prepared else None,
    )


def _file_geometry(metadata: Mapping[str, Any], config: DataConfig, source: str) -> FileGeometry | None:
    """Return what was looked at of the files that a dataset was prepared from; None: it does not say it.

    Raises:
      DataError: the configuration says another geometry. A model takes it from there, and would look at other parts of
        files than those that it learned from.
    """
    try:
        prepared = FileGeometry.from_json(metadata["file_geometry"]) if "file_geometry" in metadata else None
    except ValueError as error:
        raise DataError(f"{source}: its file_geometry is damaged ({error}); prepare it again") from error
    if prepared is None and isinstance(config.microns_per_pixel, str):
        raise DataError(
            f"{source}: data.microns_per_pixel={config.microns_per_pixel}: it was not prepared with such a column; "
            "leave it out"
        )
    for name in SCALE if prepared else ():
        was, now = getattr(prepared, name), getattr(config, name)
        if was != now:
            raise DataError(
                f"{source}: was prepared with {name}={as_text(was)}, and data.{name} is {as_text(now)}; set "
                f"data.{name}={as_text(was)} as well, because the model keeps it for files that it will see"
            )
    return prepared


def import_tfds() -> Any:
    """Import TFDS; off a terminal it then shows no progress bars."""
    import tensorflow_datasets as tfds

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    return tfds


def open_builder(name: str, data_dir: str | os.PathLike | None, source: str) -> Any:
    """Return the read-only TFDS builder of a prepared dataset.

    Raises:
      DataError: no such dataset is prepared in `data_dir`; names those that are.
    """
    tfds = import_tfds()
    from tensorflow_datasets.core import read_only_builder

    folder = Path(os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR))
    check_prepared_files(folder / name.partition(":")[0], source)
    try:
        return read_only_builder.builder_from_files(name, data_dir=folder)
    except Exception as error:  # TFDS raises nearly everything on malformed files.
        folders = [path.name for path in folder.iterdir() if path.is_dir()] if os.path.isdir(folder) else []
        there = sorted(name for name in folders if name != "downloads" and not name.startswith("."))
        raise DataError(
            f"{source}: not prepared in {folder}, which has {', '.join(there) or 'no datasets'}; set data.data_dir, or "
            "make it with bloodcell prepare"
        ) from error


class _Records:
    """The records of one split, read at random places: encoded images, or labels and ids."""

    def __init__(self, builder: Any, split: str, image_key: str, label_key: str, source: str):
        self.name, self._image_key, self._label_key = split, image_key, label_key
        # Another tool's feature of this name may mean anything.
        self._grouped = "groups_sha256" in (builder.info.metadata or {})
        encoded = {image_key: import_tfds().decode.SkipDecoding()}
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

    def describe(self, numbers: list[int]) -> list[tuple[int, str | None, str | None]]:
        """Return (label, id, group) of examples; the id or the group is None if the dataset has none."""
        return [
            (int(record[self._label_key]), _text_of(record, "id"), _text_of(record, "group") if self._grouped else None)
            for record in self._records.__getitems__(numbers)
        ]


def _find_features(features: Any, supervised: Any, source: str) -> tuple[str, str]:
    """Return the names of the image and of the label among a dataset's features."""
    tfds = import_tfds()
    preferred = [key for key in supervised or () if isinstance(key, str) and key in features]
    keys = list(dict.fromkeys([*preferred, *features]))
    images = [key for key in keys if isinstance(features[key], tfds.features.Image)]
    labels = [key for key in keys if isinstance(features[key], tfds.features.ClassLabel)]
    if not images or not labels:
        raise DataError(
            f"{source}: has no image with a class among {', '.join(features)}; give an image-classification dataset"
        )
    return images[0], labels[0]


def _in_order(infos: Mapping[str, Any], source: str) -> tuple[list[str], dict[str, int]]:
    """Return TFDS's names of the splits to read, and how many examples of the others are left out.

    If some have usual names of splits (train, val, test and their like), these are read in this order. If none has,
    all are read, and a run cuts them.

    Raises:
      DataError: two of them are the same split.
    """
    split_of = splits_of(infos, {})
    named = sorted(split_of, key=lambda name: SPLITS.index(split_of[name]))
    if twice := [pair for pair in itertools.pairwise(named) if split_of[pair[0]] == split_of[pair[1]]]:
        one, other = twice[0]
        raise DataError(f"{source}: its splits {one} and {other} are both {split_of[one]}; prepare it with one of them")
    others = {name: infos[name].num_examples for name in infos if named and name not in split_of}
    left_out = {f"split {name}": count for name, count in others.items() if count}
    if left_out:
        listed = ", ".join(f"{name} ({count:,})" for name, count in left_out.items())
        logger.warning("%s: no train, val or test, so left out: %s", source, listed)
    return named or list(infos), left_out


def _splits(parts: list[_Records]) -> dict[str, np.ndarray]:
    """Return the example indices of the splits that have usual names; the parts follow each other."""
    split_of = splits_of([part.name for part in parts], {})
    ends = np.cumsum([len(part) for part in parts])
    return {
        split_of[part.name]: np.arange(end - len(part), end, dtype=np.int32)
        for part, end in zip(parts, ends, strict=True)
        if part.name in split_of
    }


def _fingerprint(builder: Any, splits: list[str], source: str) -> str:
    """Return a text that changes when the dataset's files change, or other splits are read, or in another order."""
    with damage_named(source):
        files = sorted(Path(builder.info.data_dir).glob("*.array_record*"))
        states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return json.dumps([str(builder.info.data_dir), states, splits])


def _example_index(parts: list[_Records], folder: Path, fingerprint: str, source: str) -> ExampleIndex:
    """Return the index beside the records or in the user's cache; otherwise make one and keep it in the cache."""
    count = sum(map(len, parts))
    cached = cache_folder("data") / "indices" / f"{hashlib.sha256(fingerprint.encode()).hexdigest()[:32]}.npz"
    for path in (folder / INDEX_NAME, cached):
        if (index := ExampleIndex.load(path, count)) is not None:
            return index
    logger.info("%s: reading the labels of %s examples; the next start finds them in %s", source, f"{count:,}", cached)
    index = _read_index(parts, source)
    # A cache that cannot be written costs only time.
    with contextlib.suppress(MachineError):
        index.save(cached)
    return index


def _read_index(parts: list[_Records], source: str) -> ExampleIndex:
    rows = []
    with damage_named(source):
        for part in parts:
            starts = range(0, len(part), _RECORDS_AT_A_TIME)
            numbers = (list(range(start, min(start + _RECORDS_AT_A_TIME, len(part)))) for start in starts)
            rows += [row for some in map_ahead(part.describe, numbers, ahead=2 * DECODING_THREADS) for row in some]
    labels, names, groups = zip(*rows, strict=True) if rows else ((), (), ())
    ids = [str(i) if name is None else name for i, name in enumerate(names)]
    return ExampleIndex(np.array(labels, np.int32), Names.of(ids), None if None in groups else groups)


def _text_of(record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    return value.decode() if isinstance(value, bytes) else value if value is None else str(value)
