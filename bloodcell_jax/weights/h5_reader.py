"""HDF5 files as Keras and TensorFlow write them, read by a process that may not harm this one."""

import json
import math
import os
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from bloodcell_jax.errors import DataError, MachineError

_CHILD = Path(__file__).with_name("h5_child.py")
# Seconds of computing: any file may take the first, and one more for each so many bytes. Ordinary files take less than
# one, because this process maps their tensors itself.
_SECONDS, _BYTES_A_SECOND = 10, 20 * 2**20
# Of the clock, for each second of computing: the disk may be slow and the cores busy.
_PATIENCE = 6


def read_h5(path: Path, start: int = 0, size: int | None = None) -> dict[str, np.ndarray]:
    """Return the tensors of an HDF5 file by name, read-only; those that are not compressed are views of the file.

    Args:
      path: the file, or one that contains it.
      start, size: the part of `path` that is the HDF5 file; by default all of it.

    Raises:
      DataError: the file is damaged, takes too much time or memory, or a tensor lies in another file.
      MachineError: there is no place for temporary files.
    """
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise MachineError(f"{path}: no temporary file can be made ({error}); make room, or set TMPDIR") from error
    try:
        size = path.stat().st_size if size is None else size
        with tempfile.TemporaryFile() as output:
            _run_child(path, start, size, output)
            return _read_answer(path, output)
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read as HDF5 ({error}); download or write it again") from error


def _run_child(path: Path, start: int, size: int, output: IO[bytes]) -> None:
    """Let the child write its answer.

    Raises:
      ValueError: the file took too long, or made it crash.
    """
    seconds = _SECONDS + size // _BYTES_A_SECOND
    # No module that lies beside the child is imported (-P), and BLAS starts no threads that nobody needs.
    command = [sys.executable, "-P", str(_CHILD), str(path.absolute()), *map(str, (start, size, seconds))]
    settings = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        code = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.DEVNULL,
            env=settings,
            timeout=_PATIENCE * seconds,
        ).returncode
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"it takes longer than {_PATIENCE * seconds} seconds") from error
    if code == -signal.SIGXCPU:
        raise ValueError(f"it takes longer than {seconds} seconds of computing")
    if code < 0:
        raise ValueError("it crashes the HDF5 library")
    if code:
        raise ValueError(f"its reader ended with code {code}")


def _read_answer(path: Path, output: IO[bytes]) -> dict[str, np.ndarray]:
    """Return the tensors that the child described."""
    content = np.memmap(output, np.uint8, mode="r")
    places: dict[str, np.ndarray] = {"output": content, "file": np.memmap(path, np.uint8, mode="r")}
    (length,) = struct.unpack("<Q", content[-8:].tobytes())
    answer = json.loads(content[-8 - length : -8].tobytes())
    if "error" in answer:
        raise ValueError(answer["error"])
    return {tensor["name"]: _view(tensor, places) for tensor in answer["tensors"]}


def _view(tensor: dict[str, Any], places: dict[str, np.ndarray]) -> np.ndarray:
    dtype, shape, at = np.dtype(tensor["dtype"]), tensor["shape"], tensor["at"]
    if tensor["place"] is None:  # No numbers; whoever wants it as weights refuses the type.
        return np.broadcast_to(np.zeros((), dtype), shape)
    place, stop = places[tensor["place"]], at + math.prod(shape) * dtype.itemsize
    if stop > len(place):
        raise ValueError(f"{tensor['name']} goes past the end of the file")
    return place[at:stop].view(np.ndarray).view(dtype).reshape(shape)
