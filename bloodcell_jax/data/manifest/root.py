"""The files below the root of a manifest, also those in zip archives that its paths lead into."""

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

from bloodcell_jax.data.file_trees import FileTree, open_zip, printable, read_folder
from bloodcell_jax.regular_files import fault_of_file


@contextmanager
def open_root(root: Path, paths: Iterable[str]) -> Iterator[FileTree]:
    """Open the files of a folder or a zip archive.

    Args:
      root: the folder or archive.
      paths: of files below a folder. Where one leads through a file, as in `slide.zip/cells/1.png`, this file is an
        archive, and the tree holds what is inside it.

    Raises:
      DataError: an archive or a folder cannot be read.
    """
    if not os.path.isdir(root):
        with open_zip(root, f"data.root={root}") as tree:
            yield tree
        return
    tree = read_folder(root)
    through = {parent for path in paths for parent in PurePosixPath(path.replace("\\", "/")).parents}
    with ExitStack() as archives:
        inside = {
            path: archives.enter_context(open_zip(root / path, printable(path)))
            for path in tree.files
            if path in through and _is_archive(root / path)
        }
        yield _joined(tree, inside) if inside else tree


def _is_archive(path: Path) -> bool:
    """Return whether a file is to be opened as an archive: one that is named so is, and says it if it is damaged."""
    return path.suffix.lower() == ".zip" or (not fault_of_file(path) and zipfile.is_zipfile(path))


def _joined(tree: FileTree, archives: dict[PurePosixPath, FileTree]) -> FileTree:
    """Return a tree in which archives are folders."""
    readers: dict[PurePosixPath, Callable[[], bytes]] = {}
    folders, refused = tree.folders | archives.keys(), dict(tree.refused)
    for archive, inner in archives.items():
        readers |= {archive / path: partial(inner.read, path) for path in inner.files}
        folders |= {archive / path for path in inner.folders}
        refused |= {f"{printable(archive)}/{name}": reason for name, reason in inner.refused.items()}
    files = [path for path in tree.files if path not in archives]

    def read(path: PurePosixPath) -> bytes:
        reader = readers.get(path)
        return tree.read(path) if reader is None else reader()

    return FileTree([*files, *readers], folders, read, refused)
