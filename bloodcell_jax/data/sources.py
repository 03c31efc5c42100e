"""Data sources: one table of the kinds, and the function that reads any of them.

A new kind takes one entry in `SOURCES`, a loader and a test.
"""

import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.class_folders import load_folder, load_zip
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.grouping import with_groups
from bloodcell_jax.data.manifest.loader import load_manifest
from bloodcell_jax.data.manifest.table import SUFFIXES
from bloodcell_jax.data.medmnist import PUBLISHED_MD5, load_medmnist, names_of
from bloodcell_jax.data.npz import load_npz
from bloodcell_jax.data.synthetic import load_synthetic
from bloodcell_jax.data.tfds_reader import load_tfds
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.regular_files import fault_of_file

_HELP_WIDTH = 110
# Fields of `DataConfig` -> the kinds of sources that read them. Another would ignore them: examples, labels
# or groups would not be what the user said.
_READ_BY = dict.fromkeys(("columns", "root", "file_pattern"), ("csv",))
_READ_BY |= dict.fromkeys(("include", "exclude", "split_folders"), ("folder", "zip", "csv"))
_READ_BY |= {"class_level": ("folder", "zip")}


@dataclass(frozen=True)
class SourceKind:
    """One kind of data source, written `KIND:PLACE`.

    Attributes:
      place: what PLACE stands for. `PATH` is a file or folder, which must exist.
      help: one line for the command line.
      load: reads the source, given PLACE, the whole text for messages, and the configuration.
      recognizes: whether a bare path, one without `KIND:`, is of this kind; None: no bare path is.
      knows_names: whether the source at PLACE says the names of its classes; otherwise its labels are numbers alone.
    """

    place: str
    help: str
    load: Callable[[str, str, DataConfig], Dataset]
    recognizes: Callable[[Path], bool] | None = None
    knows_names: Callable[[str], bool] = lambda place: True


def _is_file_with(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.suffix.lower() in suffixes and not os.path.isdir(path)


SOURCES = {
    "npz": SourceKind(
        "PATH",
        "an .npz file with images, uint8 [n, h, w, 3] or floats in 0 to 1, and labels, [n] or [n, 1]",
        load_npz,
        _is_file_with(".npz"),
        knows_names=lambda place: False,
    ),
    "folder": SourceKind(
        "PATH", "class folders of image files, optionally below train/, val/ and test/", load_folder, os.path.isdir
    ),
    "zip": SourceKind(
        "PATH", "the same in a zip archive, which is never unpacked to disk", load_zip, _is_file_with(".zip")
    ),
    "csv": SourceKind(
        "PATH",
        "a table of files with their labels (.csv, .tsv, .jsonl), or a folder with one table for each split",
        load_manifest,
        _is_file_with(*SUFFIXES),
    ),
    "medmnist": SourceKind(
        "NAME",
        f"{', '.join(PUBLISHED_MD5)}: downloaded once; or the path of a MedMNIST file",
        load_medmnist,
        knows_names=lambda place: names_of(place) != (),
    ),
    "tfds": SourceKind(
        "NAME", "a prepared TFDS dataset of labeled images in data.data_dir, such as blood_cells/cells", load_tfds
    ),
    "synthetic": SourceKind("N", "N drawn cells of eight classes, 24 or more", load_synthetic),
}


def load_source(source: str, *, in_memory: bool = True, **reading: Any) -> Dataset:
    """Read a data source.

    Args:
      source: `KIND:PLACE`, as `source_help` lists it; or a bare path, which is recognized by what it is.
      in_memory: False leaves images on the disk, to be read by index, if the kind of source allows it (`tfds:`).
      **reading: fields of `DataConfig` that say how the source is read, such as image_size, crop, class_names,
        skip_bad, data_dir and include; `train --help` explains each. A kind of source ignores those that mean nothing
        to it.

    Raises:
      UsageError: the source is of no known kind.
      DataError: the source is missing or malformed; the message names the file and the remedy.
    """
    dataset = read_source(source, DataConfig(source=source, **reading))
    return dataset.in_memory() if in_memory else dataset


def read_source(source: str, config: DataConfig) -> Dataset:
    """Read a data source as a configuration says, see `load_source`; images may stay on the disk."""
    kind, place = _kind_and_place(source)
    path = source_path(source)
    if path is not None and not os.path.isdir(path) and (fault := fault_of_file(path)):
        raise DataError(f"{source}: {fault}; check data.source")
    read_by = {name: kinds for name, kinds in _READ_BY.items() if getattr(config, name) is not None}
    if isinstance(config.microns_per_pixel, str):
        read_by["microns_per_pixel"] = ("csv", "tfds")  # A prepared dataset keeps what its manifest said.
    for name, kinds in read_by.items():
        if kind not in kinds:
            raise UsageError(
                f"{source}: data.{name}={getattr(config, name)} means nothing to {kind}:, only to "
                f"{', '.join(f'{each}:' for each in kinds)}; leave it out"
            )
    if not SOURCES[kind].knows_names(place):
        _check_numbered_names(config.class_names, source)
    dataset = SOURCES[kind].load(place, source, config)
    return dataset if config.group_regex is None else with_groups(dataset, config.group_regex)


def knows_names(source: str) -> bool:
    """Return whether a source says the names of its classes; otherwise its labels are numbers alone."""
    kind, place = _kind_and_place(source)
    return SOURCES[kind].knows_names(place)


def _check_numbered_names(names: tuple[str, ...], source: str) -> None:
    """Refuse names that are numbers but not 0, 1, 2, ... for labels that are numbers: label 2 may mean class `10`."""
    if names and all(name.isdecimal() for name in names):
        wrong = next((label for label, name in enumerate(names) if int(name) != label), None)
        if wrong is not None:
            raise DataError(
                f"{source}: its labels are numbers without names, and class names are numbers in another order "
                f"({', '.join(names[:12])}): label {wrong} would be class {names[wrong]}. Give class folders instead, "
                "or names that are not numbers"
            )


def source_path(source: str) -> Path | None:
    """Return the path of the file or folder that a source names; None if its kind is no `KIND:PATH`."""
    kind, _, place = source.partition(":")
    if kind not in SOURCES:
        return Path(os.path.expanduser(source))
    return Path(os.path.expanduser(place)) if SOURCES[kind].place == "PATH" else None


def source_help() -> str:
    """Return the kinds of sources for the command line's help: plain text, one or two lines a kind."""
    forms = _forms()
    indent = max(map(len, forms)) + 2
    lines = []
    for form, kind in zip(forms, SOURCES.values(), strict=True):
        lines += textwrap.wrap(f"{form:<{indent}}{kind.help}", _HELP_WIDTH, subsequent_indent=" " * indent)
    return "\n".join(lines)


def _forms() -> list[str]:
    return [f"{name}:{kind.place}" for name, kind in SOURCES.items()]


def _kind_and_place(source: str) -> tuple[str, str]:
    name, _, place = source.partition(":")
    if name in SOURCES:
        return name, place
    path = Path(os.path.expanduser(source))
    for name, kind in SOURCES.items():
        if kind.recognizes is not None and kind.recognizes(path):
            return name, source
    *first, last = _forms()
    raise UsageError(f"{source}: not a data source; give {', '.join(first)} or {last}")
