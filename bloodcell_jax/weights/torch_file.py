"""Reading the files of `torch.save`, in both formats, without PyTorch and without copying a tensor.

Since PyTorch 1.6 the file is a zip archive of `data.pkl` and one uncompressed member per storage. Before, it was four
pickles in a row, followed by the storages. Tensors are NumPy views of the mapped file.
"""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.errors import DataError
from bloodcell_jax.weights.pickle_reader import MAX_PICKLE_BYTES, Pickle, read_pickle
from bloodcell_jax.weights.pickled_values import Storage, TensorRecord

# The first value of a file in the format before 1.6.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LOCAL_HEADER_BYTES = 30

# The keys under which training programs keep the weights, beside optimizer and options. Averaged weights come first, as
# in timm.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")


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
    # Our own errors are ValueErrors; zipfile and struct raise the others on damaged archives.
    except (ValueError, NotImplementedError, struct.error, OSError) as error:
        raise DataError(f"{path}: cannot be read as a PyTorch checkpoint: {error}") from error


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    mapped = np.memmap(path, np.uint8, mode="r")
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
    roots = [name.removesuffix("data.pkl") for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise TorchFileError("a zip archive without a data.pkl in one folder")
    root = roots[0]
    if f"{root}constants.pkl" in members:
        raise TorchFileError("a TorchScript program; save its state_dict() instead")
    order = members.get(f"{root}byteorder")
    if order is not None and _member(mapped, order).tobytes() != b"little":
        raise TorchFileError("written on a big-endian machine; save it again on another")
    pickled = _member(mapped, members[f"{root}data.pkl"])
    if len(pickled) > MAX_PICKLE_BYTES:
        raise TorchFileError(f"a data.pkl of {len(pickled):,} bytes; at most {MAX_PICKLE_BYTES:,} are read")
    value = read_pickle(pickled.tobytes()).value

    def open_tensor(record: TensorRecord) -> np.ndarray:
        name = f"{root}data/{record.storage.key}"
        if name not in members:
            raise TorchFileError(f"no member {name}")
        return _view(record, _member(mapped, members[name]))

    return {name: open_tensor(record) for name, record in _state_dict(value).items()}


def _member(mapped: np.ndarray, info: zipfile.ZipInfo) -> np.ndarray:
    """Return the bytes of a member; its claims are checked against the file."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1 or info.compress_size != info.file_size:
        raise TorchFileError(f"{info.filename} is compressed or encrypted, which torch.save never does")
    header = mapped[info.header_offset : info.header_offset + _LOCAL_HEADER_BYTES].tobytes()
    if header[:4] != b"PK\x03\x04":
        raise TorchFileError(f"no member where {info.filename} should be")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start = info.header_offset + _LOCAL_HEADER_BYTES + name_length + extra_length
    if start + info.file_size > len(mapped):
        raise TorchFileError(f"{info.filename} goes past the end of the file; download it again")
    return mapped[start : start + info.file_size].view(np.ndarray)


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

    return {name: open_tensor(record) for name, record in _state_dict(content.value).items()}


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


def _state_dict(value: Any) -> dict[str, TensorRecord]:
    """Return the tensors by name, taken out of the dicts that training programs wrap around them."""
    # At most two wrappers are opened, because a dict may contain itself.
    for _ in range(3):
        if not isinstance(value, dict):
            break
        inner = next((value[name] for name in _WRAPPERS if isinstance(value.get(name), dict)), None)
        if inner is None:
            tensors = {name: entry for name, entry in value.items() if isinstance(entry, TensorRecord)}
            if not tensors or not all(isinstance(name, str) for name in tensors):
                break
            return tensors
        value = inner
    raise TorchFileError(f"no tensors by name in it, nor under {', '.join(_WRAPPERS)}; save a state_dict()")


def _view(record: TensorRecord, data: np.ndarray) -> np.ndarray:
    """Return a tensor as a NumPy view of its storage's bytes; the record was checked against its storage's length."""
    dtype, length = record.storage.dtype, record.storage.length
    if length * dtype.itemsize > len(data):
        raise TorchFileError(f"storage {record.storage.key} claims {length:,} elements and has {len(data):,} bytes")
    elements = data[: length * dtype.itemsize].view(dtype)[record.offset :]
    strides = [stride * dtype.itemsize for stride in record.strides]
    return np.lib.stride_tricks.as_strided(elements, record.shape, strides, writeable=False)
