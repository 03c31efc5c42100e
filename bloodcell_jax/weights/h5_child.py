"""A program that reads one HDF5 file in a process of its own; `bloodcell_jax.weights.h5_reader` starts it.

HDF5 is a C library: a file of a few kilobytes can make it loop, crash or take all memory, and point it to other files
of the machine. So this process has limits of time, memory and output, and after its imports the kernel lets it open the
one file and no other. It imports nothing of this library, which would take longer than most files.

Its output is the bytes of the tensors that do not lie in the file as they are, such as compressed ones; then JSON,
`{"tensors": [{"name", "shape", "dtype", "place", "at"}, ...]}` or `{"error": why}`; then the length of the JSON, in 8
bytes. The bytes of a tensor begin at byte `at` of its place, `file` or `output`; tensors that are no numbers have none.
"""

import codecs
import contextlib
import io
import json
import os
import resource
import struct
import sys
from typing import Any

import h5py
import numpy as np

# Keras' `save` keeps the weights in this group, and the optimizer's beside it.
_SAVED_MODEL_GROUP = "model_weights"
# Of names; a ConvNeXt has a few hundred tensors.
_MOST_TENSORS, _LONGEST_NAME, _MOST_AXES = 100_000, 10_000, 32
# All tensors may unpack to so many bytes for each byte of the file, and beyond a mebibyte to so many more in all:
# weights hardly shrink when they are compressed, and a bomb grows a thousandfold.
_MOST_UNPACKED, _LEAST_UNPACKED, _MOST_ADDED = 32, 2**20, 2**31
# For the description.
_MORE_OUTPUT = 2**26
# Of address space, which HDF5's cache and a compressed tensor share. Beyond it an allocation fails.
_MEMORY_BYTES = 3 * 2**30


class _Window(io.RawIOBase):
    """A part of a file, such as an uncompressed member of an archive."""

    def __init__(self, file: Any, start: int, size: int):
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._start + self._at)
        read = self._file.readinto(memoryview(buffer)[:length])
        self._at += read
        return read


def _limit(seconds: int, output: int) -> None:
    """Let this process take so much and no more."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))  # At the first the process ends by SIGXCPU.
    resource.setrlimit(resource.RLIMIT_FSIZE, (output, output))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit.
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


def _forbid_opening() -> None:
    """Take the right to open any further file: HDF5 follows links, raw storages and plugins by their names."""
    codecs.lookup("ascii")  # h5py's names need it, and Python would look for its file only then.
    spare = os.open(os.devnull, os.O_RDONLY)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, spare))


def _weights(root: h5py.File) -> dict[str, h5py.Dataset]:
    """Return the tensors by name.

    Some files list their layers and the weights of each in order. Their names are `layer[i]/weight`, and i is the place
    of the weight in its layer: the weights' own names differ between versions for some layers. In other files a name is
    the path inside the file.
    """
    group = _group(root, _SAVED_MODEL_GROUP) if _SAVED_MODEL_GROUP in root else root
    return _layer_weights(group) if {"layer_names", "layer_names0"} & group.attrs.keys() else _datasets(group)


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    group = _member(parent, name)
    if not isinstance(group, h5py.Group):
        raise ValueError(f"{name} is no group")
    return group


def _member(parent: h5py.Group, name: str) -> Any:
    """Return what a path names in this very file."""
    member: Any = parent
    for part in filter(None, name.split("/")):
        if isinstance(member, h5py.Group) and isinstance(member.get(part, getlink=True), h5py.ExternalLink):
            raise ValueError(f"{name} lies in another file")
        member = member[part]
    return member


def _layer_weights(group: h5py.Group) -> dict[str, h5py.Dataset]:
    weights = {}
    for layer in _names(group, "layer_names"):
        members = _group(group, layer)
        for i, name in enumerate(_names(members, "weight_names")):
            weights[f"{layer}[{i}]/{name}"] = _member(members, name)
            _check_count(weights)
    return weights


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Return a list of names; Keras spreads it over several attributes if it is too long for one."""
    if attribute in group.attrs:
        parts = [group.attrs[attribute]]
    else:
        count = sum(name.startswith(attribute) for name in group.attrs)
        parts = [group.attrs[f"{attribute}{i}"] for i in range(count)]
    return [name.decode() if isinstance(name, bytes) else str(name) for part in parts for name in np.asarray(part)]


def _datasets(group: h5py.Group) -> dict[str, h5py.Dataset]:
    found = {}

    def visit(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset):
            found[name] = entry
            _check_count(found)

    group.visititems(visit)
    return found


def _check_count(found: dict[str, Any]) -> None:
    if len(found) > _MOST_TENSORS:
        raise ValueError(f"more than {_MOST_TENSORS:,} tensors")


def _describe(name: str, dataset: Any, start: int) -> dict[str, Any]:
    """Return what the parent needs of a tensor, whose bytes must lie in this file: HDF5 can point to any other."""
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is no dataset")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{name} lies in another file")
    if dataset.shape is None:
        raise ValueError(f"{name} is empty")
    if len(name) > _LONGEST_NAME or len(dataset.shape) > _MOST_AXES:
        raise ValueError("a name or a shape that no network has")
    if dataset.dtype.kind not in "fiub":
        return {"name": name, "shape": dataset.shape, "dtype": "V1", "place": None, "at": 0}
    tensor = {"name": name, "shape": dataset.shape, "dtype": dataset.dtype.str, "place": "output", "at": 0}
    at = dataset.id.get_offset()
    # Only if the types are equal are the bytes in the file those of NumPy's type.
    if at is not None and h5py.h5t.py_create(dataset.dtype).equal(dataset.id.get_type()):
        tensor |= {"place": "file", "at": start + at}
    return tensor


def _read(path: str, start: int, size: int, most_unpacked: int) -> list[dict[str, Any]]:
    """Return the description of the tensors, and write the bytes of those that are in no other place."""
    file = open(path, "rb", buffering=0)  # noqa: SIM115  # It is read until the process ends.
    _forbid_opening()
    weights = _weights(h5py.File(_Window(file, start, size), "r"))
    tensors = [_describe(name, dataset, start) for name, dataset in weights.items()]
    at = 0
    for tensor, dataset in zip(tensors, weights.values(), strict=True):
        if tensor["place"] == "output":
            tensor["at"], at = at, at + dataset.nbytes
            if at > most_unpacked:
                raise ValueError("its tensors are a multiple of the file: packed like a bomb, or never written")
            sys.stdout.buffer.write(np.ascontiguousarray(dataset[()]).data)
    return tensors


def main(path: str, start: int, size: int, seconds: int) -> None:
    """Describe the HDF5 file that lies in `path` from byte `start` on."""
    most_unpacked = max(_LEAST_UNPACKED, min(_MOST_UNPACKED * size, size + _MOST_ADDED))
    _limit(seconds, most_unpacked + _MORE_OUTPUT)
    try:
        answer: dict[str, Any] = {"tensors": _read(path, start, size, most_unpacked)}
    except Exception as error:  # h5py reports damage by whatever exception the C library's error maps to.
        answer = {"error": " ".join(str(error).split())[:300] or type(error).__name__}
    content = json.dumps(answer).encode()
    sys.stdout.buffer.write(content + struct.pack("<Q", len(content)))
    sys.stdout.buffer.flush()
    os._exit(0)  # Nothing has to be closed, and a damaged file may crash the closing.


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
