"""safetensors files: a JSON header with names, shapes and offsets, then the bytes of the tensors.

Tensors are NumPy views of the mapped file, so reading costs no memory until one is used.
"""

import contextlib
import json
import math
import os
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from bloodcell_jax.errors import DataError, MachineError
from bloodcell_jax.weights.info import WeightsInfo, info_from_dict, info_to_dict

# The header of a ConvNeXt-XXLarge has 0.1 MB. JSON takes up to thirty times its length in memory.
MAX_HEADER_BYTES = 16 * 2**20
# An array has no more axes and no longer one; the product of longer numbers would take forever.
_MOST_AXES, _LONGEST_AXIS = 32, 2**63

# The key of the metadata that keeps the WeightsInfo, as JSON because safetensors' metadata holds only strings.
INFO_KEY = "bloodcell_jax.weights_info"

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors by name, as read-only NumPy views of the file, and the metadata.

    Raises:
      DataError: the file is not a whole and consistent safetensors file.
    """
    mapped = np.memmap(path, np.uint8, mode="r")
    header = _header(path, mapped)
    metadata = header.pop("__metadata__", {})
    data = mapped[8 + _header_length(mapped) :]
    try:
        return {name: _view(data, **entry) for name, entry in header.items()}, metadata
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a whole safetensors file ({error}); download or write it again") from error


def _header_length(mapped: np.ndarray) -> int:
    return struct.unpack("<Q", mapped[:8].tobytes())[0]


def _header(path: Path, mapped: np.ndarray) -> dict[str, Any]:
    length = _header_length(mapped) if len(mapped) >= 8 else len(mapped)
    if length > len(mapped) - 8:
        raise DataError(f"{path}: its safetensors header is longer than the file; download or write it again")
    if length > MAX_HEADER_BYTES:
        raise DataError(
            f"{path}: a safetensors header of {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read, so save the "
            "network alone"
        )
    try:
        header = json.loads(mapped[8 : 8 + length].tobytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: its safetensors header is not JSON; download or write it again") from error
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise DataError(f"{path}: its safetensors header is not a table of tensors; download or write it again")
    return header


def _view(data: np.ndarray, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype[:20]!r}")
    if len(shape) > _MOST_AXES or len(data_offsets) != 2:
        raise ValueError("a shape or offsets of a length that no tensor has")
    if not all(isinstance(value, int) and 0 <= value < _LONGEST_AXIS for value in (*shape, *data_offsets)):
        raise ValueError("a shape or offset is not a whole number")
    start, stop = data_offsets
    if stop > len(data) or stop - start != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise ValueError(f"bytes {start} to {stop} for {shape} of {dtype}, in {len(data)}")
    return data[start:stop].view(np.ndarray).view(_DTYPES[dtype]).reshape(shape)


def write_safetensors(
    path: Path, tensors: dict[str, np.ndarray], info: WeightsInfo, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors and their info; a reader never sees half a file.

    Args:
      path: the file; an existing one is replaced.
      tensors: arrays by name.
      info: the facts that the tensors do not say.
      metadata: further texts by key.

    Raises:
      MachineError: the file cannot be written.
    """
    from safetensors.numpy import save

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    metadata = {INFO_KEY: json.dumps(info_to_dict(info), sort_keys=True)} | (metadata or {})
    try:
        # safetensors' own save_file makes files that nobody but their owner can read, whatever the umask.
        # Another program's link at this name would lead to another file.
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.writelines(_with_metadata(save(contiguous), metadata))
        os.replace(temporary, path)
    except OSError as error:
        raise MachineError(f"{path}: cannot be written ({error}); free space or choose another place") from error
    finally:
        with contextlib.suppress(OSError):  # A read-only folder refuses to delete even a file that does not exist.
            temporary.unlink(missing_ok=True)


def _with_metadata(content: bytes, metadata: dict[str, str]) -> tuple[bytes, memoryview]:
    """Return the header and the data of a safetensors file with metadata; safetensors' own order of keys is random."""
    data_start = 8 + struct.unpack("<Q", content[:8])[0]
    header = {"__metadata__": dict(sorted(metadata.items()))} | json.loads(content[8:data_start])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return struct.pack("<Q", len(text)) + text, memoryview(content)[data_start:]


def stored_info(path: Path, metadata: dict[str, str]) -> WeightsInfo | None:
    """Return the WeightsInfo of a file that this library wrote; None for any other file.

    Raises:
      DataError: the file has one, but it cannot be read.
    """
    if INFO_KEY not in metadata:
        return None
    try:
        return info_from_dict(json.loads(metadata[INFO_KEY]))
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: its metadata {INFO_KEY} cannot be read ({error}); convert the weights again"
        ) from error
