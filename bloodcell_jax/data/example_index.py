"""Labels and ids of a dataset's examples, kept in a file of their own: two million are read in a moment."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from bloodcell_jax.data.npz import open_npz
from bloodcell_jax.errors import DataError


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
    """Labels int32 [n] and ids of the examples, in their order: known without reading an image."""

    labels: np.ndarray
    ids: Names

    def save(self, path: Path) -> None:
        """Write the index; a reader never sees half a file.

        Raises:
          OSError: the file cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(temporary, labels=self.labels, letters=self.ids.letters, ends=self.ids.ends)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path, count: int) -> "ExampleIndex | None":
        """Return the index of `count` examples; None if there is none, or none that can be read."""
        with contextlib.suppress(DataError):
            with open_npz(path, str(path)) as file:
                index = cls(file["labels"], Names(file["letters"], file["ends"]))
            if len(index.labels) == len(index.ids) == count:
                return index
        return None
