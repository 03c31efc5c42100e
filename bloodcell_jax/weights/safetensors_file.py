"""safetensors files: a JSON header with names, shapes and offsets, then the bytes of the tensors.

Tensors are NumPy views of the mapped file, so reading costs no memory until one is used.
"""

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from bloodcell_jax.errors import DataError
from bloodcell_jax.weights.info import WeightsInfo, info_from_dict, info_to_dict
from bloodcell_jax.whole_files import replacing

# The header of a ConvNeXt-XXLarge has 0.1 MB. JSON takes up to thirty times its length in memory.
MAX_HEADER_BYTES = 16 * 2**20
# An array has no more axes and no longer one; the product of longer numbers would take forever.
_MOST_AXES, _LONGEST_AXIS = 32, 2**63

# The key of the metadata that keeps the WeightsInfo, as JSON because safetensors' metadata holds only strings.
INFO_KEY = "bloodcell_jax.weights_info"

# The key of the metadata that keeps the sha256 of the file, computed with zeros in its place.
SUM_KEY = "bloodcell_jax.sha256"
_NO_SUM = b"0" * 64

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
    if SUM_KEY in metadata:
        _check_sum(path, mapped, metadata[SUM_KEY])
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

    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    metadata = {INFO_KEY: json.dumps(info_to_dict(info), sort_keys=True), SUM_KEY: _NO_SUM.decode()} | (metadata or {})
    # safetensors' own save_file makes files that nobody but their owner can read, whatever the umask.
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.writelines(_with_metadata(save(contiguous), metadata))


def _with_metadata(content: bytes, metadata: dict[str, str]) -> tuple[bytes, memoryview]:
    """Return the header and the data of a safetensors file with metadata; safetensors' own order of keys is random."""
    data_start = 8 + struct.unpack("<Q", content[:8])[0]
    header = {"__metadata__": dict(sorted(metadata.items()))} | json.loads(content[8:data_start])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    head, data = struct.pack("<Q", len(text)) + text, memoryview(content)[data_start:]
    return head.replace(_NO_SUM, _sha256(head, data), 1), data


def _sha256(head: bytes, data: Any) -> bytes:
    digest = hashlib.sha256(head)
    digest.update(data)
    return digest.hexdigest().encode()


def _check_sum(path: Path, mapped: np.ndarray, digest: str) -> None:
    """Check that a file is as it was written: its own sum is that of the file with zeros in place of the sum."""
    end = 8 + _header_length(mapped)
    head = mapped[:end].tobytes().replace(digest.encode(), _NO_SUM, 1)
    if _sha256(head, mapped[end:]) != digest.encode():
        raise DataError(
            f"{path}: damaged; its content has changed since it was written; take a copy, or write it again"
        )


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
