"""The files that the rows of a manifest name, found below the root and nowhere else."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from bloodcell_jax.data.file_trees import FileTree, example_id, printable
from bloodcell_jax.data.manifest.columns import FilePattern
from bloodcell_jax.data.manifest.table import shown


class OutsideRoot(ValueError):
    """A row names a file that does not lie below the root."""


class Found(NamedTuple):
    """The file of a row: its path, and why it is not there, or nothing."""

    path: PurePosixPath
    fault: str


class FileFinder:
    """Finds the files that rows name.

    Args:
      tree: the files below the root.
      root: the folder or zip archive.
      pattern: how the path of a file is made of a row; None: the cell of the file column is the path.
    """

    def __init__(self, tree: FileTree, root: Path, pattern: FilePattern | None):
        self._tree, self._pattern = tree, pattern
        roots = (root.resolve(), Path(os.path.abspath(root))) if os.path.isdir(root) else ()
        self._roots = {folder.as_posix() for folder in roots}
        self._by_path = defaultdict(list)
        self._by_name = defaultdict(list)
        for path in tree.files:
            self._by_path[_normal(str(path))].append(path)
            # A table is UTF-8, and a file's name may be none: its id stands for it.
            if not str(path).isprintable():
                self._by_path[example_id(path)].append(path)
            self._by_name[_normal(path.name)].append(path)

    def find(self, cells: Mapping[str, str]) -> Found:
        """Return the file that a row names; its `file` is the cell of the file column.

        Raises:
          OutsideRoot: it leads out of the root.
          ValueError: a number of the pattern is none in this row.
        """
        wanted = self._inside(self._pattern.path(cells) if self._pattern else cells["file"])
        if self._pattern and self._pattern.is_wild:
            match = self._pattern.matches(cells)
            found = [path for path in self._by_name[_normal(wanted.name)] if match.fullmatch(_normal(str(path)))]
        else:
            found = self._by_path.get(_normal(str(wanted)), [])
            # Two spellings of one accent are two files on some systems; the row's own spelling decides.
            found = [path for path in found if path == wanted] or found
        if len(found) == 1:
            return Found(found[0], "")
        if found:
            return Found(wanted, f"{len(found)} files match: {shown(map(printable, found))}")
        if wanted in self._tree.folders:
            return Found(wanted, "a folder")
        return Found(wanted, self._tree.refused.get(printable(wanted), "no such file"))

    def _inside(self, text: str) -> PurePosixPath:
        """Return a path relative to the root; blanks at its ends and backslashes are kept if a file is named so."""
        if _normal(text) in self._by_path:
            return PurePosixPath(text)
        path = PurePosixPath(text.strip().replace("\\", "/"))
        for root in self._roots:
            if path.is_absolute() and path.is_relative_to(root):
                path = path.relative_to(root)
        if path.is_absolute() or ".." in path.parts or (path.parts[:1] and path.parts[0].endswith(":")):
            raise OutsideRoot(text)
        return path

    def advice(self, path: PurePosixPath) -> str:
        """Return what may be meant by a path that does not exist."""
        alike = [file for file in self._tree.files if str(file).casefold() == str(path).casefold()]
        if alike:
            return f"{printable(alike[0])} differs by case; write it as the file is named"
        if self._pattern is None and (pattern := self._pattern_for(path)):
            return f"data.file_pattern='{pattern}' says so if {path.name!r} is meant"
        return "data.root names the folder or zip that the paths begin in"

    def _pattern_for(self, path: PurePosixPath) -> str | None:
        """Return the pattern that would find a name: in another folder, with a suffix, or filled with zeros."""
        if self._by_name.get(_normal(path.name)):
            return "**/{file}"
        if path.suffix or len(path.parts) > 1:
            return None
        for file in self._tree.files:
            folder = "" if len(file.parts) == 1 else "**/"
            if file.stem == path.name:
                return f"{folder}{{file}}{file.suffix}"
            if path.name.isdecimal() and file.stem.isdecimal() and file.stem.lstrip("0") == path.name.lstrip("0"):
                return f"{folder}{{file:0{len(file.stem)}d}}{file.suffix}"
        return None


def _normal(text: str) -> str:
    """Return a path with one spelling for accents, because file systems use several."""
    return unicodedata.normalize("NFC", text)
