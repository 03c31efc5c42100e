"""Labels, ids and groups of a dataset's examples, kept in a file of their own: two million are read in a moment."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.lib.npyio import NpzFile

from bloodcell_jax.data.npz import open_npz, read_array
from bloodcell_jax.errors import DataError
from bloodcell_jax.whole_files import replacing


class Names(Sequence[str]):
    """Many texts packed into one: each takes only the bytes of its letters, not a Python object.

    Args:
      letters: uint8, the texts in UTF-8, one after the other.
      ends: int64 [n], the end of each text in `letters`.
    """

    def __init__(self, letters: np.ndarray, ends: np.ndarray):
        self.letters, self.ends = letters, ends

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Names":
        """Pack these texts."""
        encoded = [text.encode() for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        index = range(len(self))[index]
        start = self.ends[index - 1] if index else 0
        return self.letters[start : self.ends[index]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


class ExampleIndex(NamedTuple):
    """Labels int32 [n], ids and groups of the examples, in their order: known without reading an image."""

    labels: np.ndarray
    ids: Names
    groups: tuple[str, ...] | None = None

    def save(self, path: Path) -> None:
        """Write the index; a reader never sees half a file.

        Raises:
          MachineError: the file cannot be written.
        """
        arrays: dict[str, Any] = {"labels": self.labels, "letters": self.ids.letters, "ends": self.ids.ends}
        if self.groups is not None:
            # A few names stand for many examples.
            names, numbers = np.unique(np.asarray(self.groups), return_inverse=True)
            packed = Names.of(names.tolist())
            arrays |= {"groups": numbers, "group_letters": packed.letters, "group_ends": packed.ends}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path, count: int) -> "ExampleIndex | None":
        """Return the index of `count` examples; None if there is none, or none that can be read."""
        with contextlib.suppress(DataError):
            with open_npz(path, str(path)) as file:
                names = _names_in(file, "letters", "ends")
                index = cls(_whole_numbers(file, "labels"), names, _groups_in(file))
            if len(index.labels) == len(index.ids) == count == len(index.ids if index.groups is None else index.groups):
                return index
        return None


def _groups_in(file: NpzFile) -> tuple[str, ...] | None:
    if "groups" not in file:
        return None
    names = tuple(_names_in(file, "group_letters", "group_ends"))
    return tuple(names[number] for number in _whole_numbers(file, "groups"))


def _names_in(file: NpzFile, letters: str, ends: str) -> Names:
    """Return the packed texts of a file, which anybody may have written.

    Raises:
      ValueError: they are none.
    """
    names = Names(_whole_numbers(file, letters), _whole_numbers(file, ends))
    is_packed = names.letters.dtype == np.uint8 and names.ends.dtype == np.int64
    if not is_packed or (np.diff(names.ends, prepend=0, append=len(names.letters)) < 0).any():
        raise ValueError("no packed texts")
    names.letters.tobytes().decode()
    starts = names.letters[names.ends[names.ends < len(names.letters)]]
    if ((starts & 0xC0) == 0x80).any():
        raise ValueError("a text that begins inside a character")
    return names


def _whole_numbers(file: NpzFile, key: str) -> np.ndarray:
    array = read_array(file, key, key)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{key} are no whole numbers")
    return array
