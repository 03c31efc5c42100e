"""Images in class folders, on disk or in a zip archive: `basophil/a.jpg`, or `train/basophil/a.jpg`."""

import logging
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data import image_files
from bloodcell_jax.data.class_tree import Entry, read_class_tree, sorted_class_names
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.file_trees import (
    FileTree,
    UnreadableFile,
    is_hidden,
    open_zip,
    printable,
    read_folder,
)
from bloodcell_jax.data.geometry import Geometry
from bloodcell_jax.devices.host import check_fits
from bloodcell_jax.errors import DataError

logger = logging.getLogger(__name__)

# An error is one line, so it names only this many images.
NAMED_IN_ERROR = 5


def load_folder(place: str, source: str, config: DataConfig) -> Dataset:
    """Read class folders from disk; see `bloodcell_jax.data.sources.load_source`."""
    path = Path(place).expanduser()
    if not path.is_dir():
        raise DataError(f"{source}: not a folder; give folder:PATH of class folders")
    return _load(read_folder(path), source, config)


def load_zip(place: str, source: str, config: DataConfig) -> Dataset:
    """Read class folders from a zip archive; see `bloodcell_jax.data.sources.load_source`."""
    with open_zip(Path(place).expanduser(), source) as tree:
        return _load(tree, source, config)


def _load(tree: FileTree, source: str, config: DataConfig) -> Dataset:
    entries = _entries(tree, source, config)
    names = config.class_names or sorted_class_names(entry.class_name for entry in entries)
    _check_class_names({entry.class_name for entry in entries}, names, source)
    images, sizes, bad = _decode_all(tree, entries, source, config)
    unreadable = {name: reason for name, reason in tree.refused.items() if is_image(PurePosixPath(name))}
    unreadable |= {printable(entries[i].path): reason for i, reason in bad.items()}
    if unreadable:
        _report_unreadable(unreadable, len(entries) + len(unreadable) - len(bad), source, config.skip_bad)
        good = [i for i in range(len(entries)) if i not in bad]
        images, sizes, entries = images[good], sizes[good], [entries[i] for i in good]
    left_out = _ignored(tree, source)
    selected_out = sum(map(is_image, tree.files)) - len(entries) - len(bad)
    if selected_out:
        left_out["by data.include and data.exclude"] = selected_out
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
        original_sizes=sizes[:, :2],
        sides=sizes[:, 2],
        left_out=left_out,
    )


def _entries(tree: FileTree, source: str, config: DataConfig) -> list[Entry]:
    paths = [path for path in tree.files if is_image(path)]
    if not paths:
        refused = "; ".join(f"{name}: {reason}" for name, reason in list(tree.refused.items())[:NAMED_IN_ERROR])
        wanted = f"it needs files ending in {', '.join(sorted(image_files.SUFFIXES))}"
        raise DataError(f"{source}: holds no image that can be read ({refused or wanted})")
    folders = {folder for folder in tree.folders if not is_hidden(folder)}
    return read_class_tree(paths, folders, source, config)


def is_image(path: PurePosixPath) -> bool:
    """Return whether a path has the suffix of an image file and is not hidden."""
    return path.suffix.lower() in image_files.SUFFIXES and not is_hidden(path)


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
    tree: FileTree, entries: list[Entry], source: str, config: DataConfig
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Return the images, uint8 [n, h, w, 3], their sizes and sides, int32 [n, 3], and why others cannot be read."""
    geometry = Geometry.of(config)
    shape = (len(entries), geometry.image_size, geometry.image_size, 3)
    check_fits(math.prod(shape), source)
    images = np.empty(shape, np.uint8)

    def decode(i: int) -> tuple[int, int, int] | str:
        """Decode one file; returns its size and the side that is looked at, or the reason why it cannot be read."""
        path = entries[i].path
        try:
            decoded = image_files.decode_sized(tree.read(path), printable(path), geometry)
        except UnreadableFile as error:
            return error.reason
        images[i] = decoded.pixels
        return decoded.width, decoded.height, decoded.side

    with ThreadPoolExecutor(image_files.DECODING_THREADS) as pool:
        found = list(pool.map(decode, range(len(entries))))
    bad = {i: reason for i, reason in enumerate(found) if isinstance(reason, str)}
    return images, np.array([(0, 0, 0) if i in bad else each for i, each in enumerate(found)], np.int32), bad


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


def _ignored(tree: FileTree, source: str) -> dict[str, int]:
    """Return how many visible files are no images by their suffix, and log it: an image may be among them."""
    others = [path for path in tree.files if not is_image(path) and not is_hidden(path)]
    suffixes = Counter(path.suffix.lower() or "none" for path in others)
    if others:
        kinds = ", ".join(f"{printable(PurePosixPath(suffix))}: {n:,}" for suffix, n in suffixes.most_common(5))
        logger.info("%s: files that are no images by their suffix are ignored (%s)", source, kinds)
    return {f"no images by their suffix {printable(PurePosixPath(suffix))}": n for suffix, n in suffixes.most_common()}
