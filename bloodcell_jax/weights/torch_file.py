"""Reading the files of `torch.save`, in both formats, without PyTorch and without copying a tensor.

Since PyTorch 1.6 the file is a zip archive of `data.pkl` and one uncompressed member per storage. Before, it was four
pickles in a row, followed by the storages. Tensors are NumPy views of the mapped file.
"""

import struct
import zipfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.errors import DataError
from bloodcell_jax.weights.parts import MAX_NAME_LENGTH
from bloodcell_jax.weights.pickle_reader import MAX_PICKLE_BYTES, Pickle, read_pickle
from bloodcell_jax.weights.pickled_values import Storage, TensorRecord
from bloodcell_jax.weights.zip_members import ZipMembers

# The first value of a file in the format before 1.6.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

# Training programs keep the weights in up to two dicts, beside optimizer and options.
_MAX_DEPTH = 4


class TorchFileError(ValueError):
    """The file is not a whole checkpoint, or not an acceptable one; the message says why."""


def read_torch_zip(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a PyTorch zip checkpoint by name.

    Raises:
      DataError: the file is damaged or compressed, or its pickle needs more than tensors.
    """
    return _named_errors(path, _read_zip)


def read_torch_legacy(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a PyTorch checkpoint of the format before 1.6 by name; see `read_torch_zip`."""
    return _named_errors(path, _read_legacy)


def _named_errors(path: Path, read: Callable[[Path], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    try:
        return read(path)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: not a whole PyTorch checkpoint ({error}); download it again") from error
    # Our own errors are ValueErrors; struct raises the other on damaged files.
    except (ValueError, OverflowError, struct.error, OSError) as error:
        raise DataError(f"{path}: cannot be read as a PyTorch checkpoint: {error}") from error


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    members = ZipMembers(path)
    roots = [n.removesuffix("data.pkl") for n in members.names if n.count("/") == 1 and n.endswith("/data.pkl")]
    if len(roots) != 1:
        raise TorchFileError("a zip archive without a data.pkl in one folder")
    root = roots[0]
    if f"{root}constants.pkl" in members.names:
        raise TorchFileError("a TorchScript program; save its state_dict() instead")
    if f"{root}byteorder" in members.names and members.read(f"{root}byteorder").tobytes() != b"little":
        raise TorchFileError("written on a big-endian machine; save it again on another")
    pickled = members.read(f"{root}data.pkl")
    if len(pickled) > MAX_PICKLE_BYTES:
        raise TorchFileError(f"a data.pkl of {len(pickled):,} bytes; at most {MAX_PICKLE_BYTES:,} are read")
    value = read_pickle(pickled.tobytes()).value
    records = _named_tensors(value)
    return {name: _view(record, members.read(f"{root}data/{record.storage.key}")) for name, record in records.items()}


def _read_legacy(path: Path) -> dict[str, np.ndarray]:
    mapped = np.memmap(path, np.uint8, mode="r")
    position = 0

    def next_pickle() -> Pickle:
        nonlocal position
        pickle = read_pickle(mapped[position : position + MAX_PICKLE_BYTES].tobytes())
        position += pickle.length
        return pickle

    if next_pickle().value != _LEGACY_MAGIC:
        raise TorchFileError("a pickle, but not one of torch.save")
    _protocol, machine, content, keys = next_pickle(), next_pickle(), next_pickle(), next_pickle()
    if not isinstance(machine.value, dict) or machine.value.get("little_endian") is not True:
        raise TorchFileError("written on a big-endian machine; save it again on another")
    storages = _legacy_storages(mapped, position, keys.value, content.storages)

    def open_tensor(record: TensorRecord) -> np.ndarray:
        if record.storage.key not in storages:
            raise TorchFileError(f"no storage {record.storage.key}")
        return _view(record, storages[record.storage.key])

    return {name: open_tensor(record) for name, record in _named_tensors(content.value).items()}


def _legacy_storages(
    mapped: np.ndarray, position: int, keys: Any, described: dict[str, Storage]
) -> dict[str, np.ndarray]:
    """Return the bytes of each storage; they follow in the order of `keys`, each after its length in elements."""
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in described for key in keys):
        raise TorchFileError("a malformed list of storages")
    storages = {}
    for key in keys:
        (length,) = struct.unpack("<q", mapped[position : position + 8].tobytes())
        size = length * described[key].dtype.itemsize
        if length < 0 or position + 8 + size > len(mapped):
            raise TorchFileError(f"storage {key} goes past the end of the file; download it again")
        storages[key] = mapped[position + 8 : position + 8 + size].view(np.ndarray)
        position += 8 + size
    return storages


def _named_tensors(value: Any) -> dict[str, TensorRecord]:
    """Return the tensors by name; the name of one in nested dicts is the path to it, joined by dots."""
    tensors: dict[str, TensorRecord] = {}
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), value)])
    # Each dict is opened once: one may contain itself, or be in many places.
    opened: set[int] = set()
    while waiting:
        path, entry = waiting.popleft()
        if isinstance(entry, TensorRecord) and path:
            if tensors.setdefault(".".join(path), entry) is not entry:
                raise TorchFileError(f"two tensors with the name {'.'.join(path)}")
        elif isinstance(entry, dict) and id(entry) not in opened and len(path) <= _MAX_DEPTH:
            opened.add(id(entry))
            names = [key for key in entry if isinstance(key, str) and len(key) <= MAX_NAME_LENGTH]
            waiting.extend(((*path, name), entry[name]) for name in names)
    if not tensors:
        raise TorchFileError("no tensors by name in it; save a state_dict()")
    return tensors


def _view(record: TensorRecord, data: np.ndarray) -> np.ndarray:
    """Return a tensor as a NumPy view of its storage's bytes; the record was checked against its storage's length."""
    dtype, length = record.storage.dtype, record.storage.length
    if length * dtype.itemsize > len(data):
        raise TorchFileError(f"storage {record.storage.key} claims {length:,} elements and has {len(data):,} bytes")
    elements = data[: length * dtype.itemsize].view(dtype)[record.offset :]
    strides = [stride * dtype.itemsize for stride in record.strides]
    return np.lib.stride_tricks.as_strided(elements, record.shape, strides, writeable=False)
