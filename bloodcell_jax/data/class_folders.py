"""Pictures in class folders, on disk or in a zip archive: `basophil/a.jpg`, or `train/basophil/a.jpg`."""

import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from bloodcell_jax.data import pictures
from bloodcell_jax.data.dataset import SPLITS, Dataset
from bloodcell_jax.errors import DataError

DECODING_THREADS = 8


@dataclass(frozen=True)
class _Tree:
    """What a folder and an archive have in common: files, folders (the empty ones too) and a way to read a file."""

    files: list[PurePosixPath]
    folders: set[PurePosixPath]
    read: Callable[[PurePosixPath], bytes]


class _Entry(NamedTuple):
    split: str  # empty where the source names no splits
    class_name: str
    path: PurePosixPath


def load_folder(path: Path, source: str, **geometry) -> Dataset:
    """Read class folders from disk; see `bloodcell_jax.data.sources.load_source`."""
    if not path.is_dir():
        raise DataError(f"{source}: not a folder; give folder:PATH of class folders")
    inside = [(PurePosixPath(p.relative_to(path).as_posix()), p.is_dir()) for p in sorted(path.rglob("*"))]
    tree = _Tree(
        files=[name for name, is_folder in inside if not is_folder],
        folders={name for name, is_folder in inside if is_folder},
        read=lambda name: (path / name).read_bytes(),
    )
    return _load(tree, source, **geometry)


def load_zip(path: Path, source: str, **geometry) -> Dataset:
    """Read class folders from a zip archive; see `bloodcell_jax.data.sources.load_source`."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{source}: cannot be read as a zip archive ({error})") from error
    with archive:
        names = [(PurePosixPath(info.filename), info.is_dir()) for info in archive.infolist()]
        files = [name for name, is_folder in names if not is_folder]
        folders = {name for name, is_folder in names if is_folder}.union(*(name.parents for name in files))
        return _load(_Tree(files, folders, lambda name: archive.read(str(name))), source, **geometry)


def _load(tree: _Tree, source: str, *, image_size: int, crop: int | None, class_names: tuple[str, ...]) -> Dataset:
    entries = _entries(tree, source)
    names = class_names or tuple(sorted({entry.class_name for entry in entries}))
    for entry in entries:
        if entry.class_name not in names:
            raise DataError(
                f"{source}: class folder {entry.class_name} is not among data.class_names ({', '.join(names)})"
            )
    return Dataset(
        images=_decode_all(tree, entries, source, image_size, crop),
        labels=np.array([names.index(entry.class_name) for entry in entries], np.int32),
        class_names=names,
        ids=tuple(str(entry.path) for entry in entries),
        source=source,
        splits={
            split: np.flatnonzero([entry.split == split for entry in entries]).astype(np.int32)
            for split in dict.fromkeys(entry.split for entry in entries)
            if split
        },
    )


def _entries(tree: _Tree, source: str) -> list[_Entry]:
    """Return every picture's place, by split (train, val, test), then by path in byte order of UTF-8."""
    paths = [path for path in tree.files if is_picture(path)]
    if not paths:
        raise DataError(f"{source}: holds no picture ({', '.join(sorted(pictures.SUFFIXES))})")
    top = _wrapping_folders(paths)
    first_folders = {path.parts[top] for path in paths if len(path.parts) > top + 1}
    has_splits = bool(first_folders) and first_folders <= set(SPLITS)
    if has_splits and "train" not in first_folders:
        raise DataError(f"{source}: {', '.join(sorted(first_folders))} without train/; call the training folder train")
    class_depth = top + has_splits
    entries = []
    for path in paths:
        if len(path.parts) < class_depth + 2:
            raise DataError(f"{source}: {path} lies in no class folder; expected CLASS/PICTURE or train/CLASS/PICTURE")
        entries.append(_Entry(path.parts[top] if has_splits else "", path.parts[class_depth], path))
    _check_no_empty_class(tree.folders, {entry.class_name for entry in entries}, class_depth, source)
    split_order = ("", *SPLITS)
    return sorted(entries, key=lambda e: (split_order.index(e.split), str(e.path).encode("utf-8", "surrogateescape")))


def is_picture(path: PurePosixPath) -> bool:
    """Return whether a path is a picture file by its suffix, and not a hidden one."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in pictures.SUFFIXES and not hidden


def _wrapping_folders(paths: list[PurePosixPath]) -> int:
    """Return how many folders wrap all others, as archives often have one: `PBC_dataset/basophil/...` -> 1."""
    depth = 0
    while all(len(path.parts) > depth + 2 for path in paths):
        folders = {path.parts[depth] for path in paths}
        if len(folders) > 1 or folders <= set(SPLITS):
            break
        depth += 1
    return depth


def _check_no_empty_class(folders: set[PurePosixPath], found: set[str], class_depth: int, source: str) -> None:
    """Refuse a class folder without pictures: the model would lack that class and nobody would be told."""
    for folder in sorted(folders):
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in folder.parts)
        if len(folder.parts) == class_depth + 1 and not hidden and folder.name not in found:
            raise DataError(f"{source}: class folder {folder} holds no picture; add some or remove the folder")


def _decode_all(tree: _Tree, entries: list[_Entry], source: str, image_size: int, crop: int | None) -> np.ndarray:
    images = np.empty((len(entries), image_size, image_size, 3), np.uint8)

    def decode(i: int) -> None:
        path = entries[i].path
        try:
            content = tree.read(path)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
            raise DataError(f"{source}: {path} cannot be read ({error}); repair or remove it") from error
        images[i] = pictures.decode(content, f"{source}: {path}", image_size=image_size, crop=crop)

    # Pillow releases the interpreter lock while it decodes, so threads use every core.
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        for _ in pool.map(decode, range(len(entries))):
            pass
    return images
