"""Images in class folders, on disk or in a zip archive: `basophil/a.jpg`, or `train/basophil/a.jpg`."""

import logging
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from bloodcell_jax.data import image_files
from bloodcell_jax.data.dataset import SPLITS, Dataset
from bloodcell_jax.data.file_trees import (
    FileTree,
    UnreadableFile,
    class_name_of,
    open_zip,
    printable,
    read_folder,
)
from bloodcell_jax.data.source_options import SourceOptions
from bloodcell_jax.devices.host import check_fits
from bloodcell_jax.errors import DataError

logger = logging.getLogger(__name__)

# An error is one line, so it names only this many images.
NAMED_IN_ERROR = 5


class _Entry(NamedTuple):
    split: str  # empty if the source names no splits
    class_name: str
    path: PurePosixPath


def load_folder(place: str, source: str, options: SourceOptions) -> Dataset:
    """Read class folders from disk; see `bloodcell_jax.data.sources.load_source`."""
    path = Path(place).expanduser()
    if not path.is_dir():
        raise DataError(f"{source}: not a folder; give folder:PATH of class folders")
    return _load(read_folder(path), source, options)


def load_zip(place: str, source: str, options: SourceOptions) -> Dataset:
    """Read class folders from a zip archive; see `bloodcell_jax.data.sources.load_source`."""
    with open_zip(Path(place).expanduser(), source) as tree:
        return _load(tree, source, options)


def _load(tree: FileTree, source: str, options: SourceOptions) -> Dataset:
    entries = _entries(tree, source)
    names = options.class_names or tuple(sorted({entry.class_name for entry in entries}))
    _check_class_names({entry.class_name for entry in entries}, names, source)
    images, bad = _decode_all(tree, entries, source, options)
    unreadable = {name: reason for name, reason in tree.refused.items() if is_image(PurePosixPath(name))}
    unreadable |= {printable(entries[i].path): reason for i, reason in bad.items()}
    if unreadable:
        _report_unreadable(unreadable, len(entries) + len(unreadable) - len(bad), source, options.skip_bad)
        good = [i for i in range(len(entries)) if i not in bad]
        images, entries = images[good], [entries[i] for i in good]
    _mention_ignored(tree, source)
    return Dataset(
        images=images,
        labels=np.array([names.index(entry.class_name) for entry in entries], np.int32),
        class_names=names,
        ids=tuple(printable(entry.path) for entry in entries),
        source=source,
        splits={
            split: np.flatnonzero([entry.split == split for entry in entries]).astype(np.int32)
            for split in dict.fromkeys(entry.split for entry in entries)
            if split
        },
        skipped=unreadable,
    )


def _entries(tree: FileTree, source: str) -> list[_Entry]:
    """Return every image file, ordered by split (train, val, test), then by path in byte order of UTF-8."""
    paths = [path for path in tree.files if is_image(path)]
    if not paths:
        refused = "; ".join(f"{name}: {reason}" for name, reason in list(tree.refused.items())[:NAMED_IN_ERROR])
        wanted = f"it needs files ending in {', '.join(sorted(image_files.SUFFIXES))}"
        raise DataError(f"{source}: holds no image that can be read ({refused or wanted})")
    top = _wrapping_folders(paths)
    first_folders = {path.parts[top] for path in paths if len(path.parts) > top + 1}
    has_splits = bool(first_folders) and first_folders <= set(SPLITS)
    if has_splits and "train" not in first_folders:
        raise DataError(f"{source}: {', '.join(sorted(first_folders))} without train/; call the training folder train")
    class_depth = top + has_splits
    entries = []
    for path in paths:
        if len(path.parts) < class_depth + 2:
            raise DataError(
                f"{source}: {printable(path)} lies in no class folder; move it to CLASS/IMAGE or train/CLASS/IMAGE"
            )
        entries.append(_Entry(path.parts[top] if has_splits else "", class_name_of(path.parts[class_depth]), path))
    _check_no_empty_class(tree.folders, {entry.class_name for entry in entries}, class_depth, source)
    split_order = ("", *SPLITS)
    return sorted(entries, key=lambda e: (split_order.index(e.split), str(e.path).encode("utf-8", "surrogateescape")))


def is_image(path: PurePosixPath) -> bool:
    """Return whether a path has the suffix of an image file and is not hidden."""
    return path.suffix.lower() in image_files.SUFFIXES and not _is_hidden(path)


def _is_hidden(path: PurePosixPath) -> bool:
    return any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in path.parts)


def _wrapping_folders(paths: list[PurePosixPath]) -> int:
    """Return how many folders wrap all others; archives often have one: `PBC_dataset/basophil/...` -> 1."""
    depth = 0
    while all(len(path.parts) > depth + 2 for path in paths):
        folders = {path.parts[depth] for path in paths}
        if len(folders) > 1 or folders <= set(SPLITS):
            break
        depth += 1
    return depth


def _check_no_empty_class(folders: set[PurePosixPath], found: set[str], class_depth: int, source: str) -> None:
    """Refuse a class folder without images, because the model would silently lack that class."""
    for folder in sorted(folders):
        is_class = len(folder.parts) == class_depth + 1 and not _is_hidden(folder)
        if is_class and class_name_of(folder.name) not in found:
            raise DataError(f"{source}: class folder {printable(folder)} holds no image; add some or remove the folder")


def _check_class_names(found: set[str], names: tuple[str, ...], source: str) -> None:
    """Refuse folders that are not among the given names; the error also says which names have no folder."""
    unknown, absent = sorted(found - set(names)), [name for name in names if name not in found]
    if unknown:
        folders = f"class folder{'s' * (len(unknown) > 1)} {', '.join(unknown)}"
        lacking = f", of which {', '.join(absent)} ha{'ve' if len(absent) > 1 else 's'} no folder" if absent else ""
        verb = "are" if len(unknown) > 1 else "is"
        raise DataError(
            f"{source}: {folders} {verb} not among data.class_names ({', '.join(names)}){lacking}; rename one of them"
        )


def _decode_all(
    tree: FileTree, entries: list[_Entry], source: str, options: SourceOptions
) -> tuple[np.ndarray, dict[int, str]]:
    """Return the images, uint8 [n, h, w, 3], and index -> reason for those that cannot be read."""
    size, crop = options.image_size, options.crop
    shape = (len(entries), size, size, 3)
    check_fits(math.prod(shape), source)
    images = np.empty(shape, np.uint8)

    def decode(i: int) -> str | None:
        path = entries[i].path
        try:
            images[i] = image_files.decode(tree.read(path), printable(path), image_size=size, crop=crop)
        except UnreadableFile as error:
            return error.reason
        return None

    with ThreadPoolExecutor(image_files.DECODING_THREADS) as pool:
        reasons = list(pool.map(decode, range(len(entries))))
    return images, {i: reason for i, reason in enumerate(reasons) if reason is not None}


def _report_unreadable(unreadable: dict[str, str], total: int, source: str, skip_bad: bool) -> None:
    """Log every image that is left out; raise if leaving out is not allowed, or if no image is left.

    Raises:
      DataError: as above; names the first images and the reasons.
    """
    count = f"{len(unreadable):,} of {total:,} images cannot be read"
    if skip_bad and len(unreadable) < total:
        for name, reason in unreadable.items():
            logger.warning("%s: %s skipped (%s)", source, name, reason)
        logger.warning("%s: %s and are left out", source, count)
        return
    shown = [f"{name} ({reason})" for name, reason in list(unreadable.items())[:NAMED_IN_ERROR]]
    more = [f"{len(unreadable) - len(shown):,} more"] if len(unreadable) > len(shown) else []
    remedy = (
        "repair or remove them, or leave them out with --skip_bad"
        if len(unreadable) < total
        else "repair or replace them"
    )
    raise DataError(f"{source}: {count}: {', '.join([*shown, *more])}; {remedy}")


def _mention_ignored(tree: FileTree, source: str) -> None:
    """Log which visible files were ignored because of their suffix: an image may be among them."""
    others = [path for path in tree.files if not is_image(path) and not _is_hidden(path)]
    if others:
        suffixes = Counter(path.suffix.lower() or "none" for path in others)
        kinds = ", ".join(f"{printable(PurePosixPath(suffix))}: {n:,}" for suffix, n in suffixes.most_common(5))
        logger.info("%s: files that are no images by their suffix are ignored (%s)", source, kinds)
