"""Opening a checkpoint file: its first bytes tell its kind, never its name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bloodcell_jax.errors import DataError
from bloodcell_jax.regular_files import check_regular_file
from bloodcell_jax.weights.info import WeightsInfo
from bloodcell_jax.weights.parts import MAX_NAME_LENGTH
from bloodcell_jax.weights.safetensors_file import read_safetensors, stored_info

# Names are shown in messages, and patterns go over each, from each of its parts. Dicts in dicts make the longest.
_MOST_TENSORS, _LONGEST_NAME, _MOST_PARTS = 100_000, 5 * MAX_NAME_LENGTH, 64


@dataclass(frozen=True)
class StoredWeights:
    """The content of a file.

    Attributes:
      tensors: the tensors by the file's own names, mostly views of the mapped file.
      info: the info that this library wrote; None in all other files.
      last_layers: classes of the layers after the last block, from the file's description; empty if it has none.
      metadata: the texts of a safetensors file by key.
    """

    tensors: Mapping[str, np.ndarray]
    info: WeightsInfo | None = None
    last_layers: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_file(path: Path) -> StoredWeights:
    """Open a safetensors, PyTorch, HDF5 or Keras file; a tensor is read when it is used.

    Raises:
      DataError: the file is of no such kind, or not whole.
    """
    stored = _read(path)
    if len(stored.tensors) > _MOST_TENSORS:
        raise DataError(f"{path}: {len(stored.tensors):,} tensors; a network has a few hundred, so save it alone")
    if odd := next(filter(_is_odd, stored.tensors), None):
        raise DataError(f"{path}: names a tensor {odd[:50]!r}, which no network does; download or write it again")
    return stored


def _is_odd(name: str) -> bool:
    return len(name) > _LONGEST_NAME or name.count("/") + name.count(".") > _MOST_PARTS or not name.isprintable()


def _read(path: Path) -> StoredWeights:
    start = _first_bytes(path)
    if start[8:9] == b"{":
        tensors, metadata = read_safetensors(path)
        return StoredWeights(tensors, stored_info(path, metadata), metadata=metadata)
    if start.startswith(b"PK"):
        from bloodcell_jax.weights.keras_archive import is_keras_archive, read_keras_archive
        from bloodcell_jax.weights.torch_file import read_torch_zip

        if is_keras_archive(path):
            tensors, last_layers = read_keras_archive(path)
            return StoredWeights(tensors, last_layers=last_layers)
        return StoredWeights(read_torch_zip(path))
    if start.startswith(b"\x80"):
        from bloodcell_jax.weights.torch_file import read_torch_legacy

        return StoredWeights(read_torch_legacy(path))
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        from bloodcell_jax.weights.h5_reader import read_h5

        return StoredWeights(read_h5(path))
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise DataError(f"{path}: a web page, not weights; the download failed, so download it again")
    if start.startswith(b"version https://git-lfs"):
        raise DataError(f"{path}: a pointer of Git LFS, not weights; run git lfs pull, or download the file itself")
    raise DataError(f"{path}: not a weights file; give safetensors, PyTorch (.pth, .pt, .bin), HDF5 (.h5) or .keras")


def _first_bytes(path: Path) -> bytes:
    check_regular_file(path)
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a readable file") from error
