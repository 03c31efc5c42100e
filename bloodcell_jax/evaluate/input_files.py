"""The image files that `predict` is given: found, named apart, and what is no image counted."""

import glob
import logging
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from bloodcell_jax.data.decoded_files import is_image, lost_folders
from bloodcell_jax.data.file_trees import (
    FileTree,
    UnreadableFile,
    is_hidden,
    open_zip,
    printable,
    read_file,
    read_folder,
)
from bloodcell_jax.errors import UsageError

logger = logging.getLogger(__name__)

# Suffixes of images that Pillow does not read, or not as one picture: `strict` refuses to pass over them. Raw data of
# cameras, whole slides and TIFFs under other names are known by their content.
_OTHER_IMAGES = frozenset(
    (
        *(".heic", ".heif", ".hif", ".avif", ".avifs", ".apng", ".jxl", ".jxr", ".jp2", ".j2k", ".jpx", ".exr", ".hdr"),
        *(".svg", ".eps", ".psd", ".xcf", ".pfm", ".rgb", ".rgba", ".ras", ".fits", ".fit"),
        *(".dcm", ".czi", ".lif", ".nd2", ".oib", ".oif", ".vsi", ".mrxs", ".cr3", ".raf", ".rw2", ".orf"),
    )
)
_FIRST_BYTES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51"),
    *(b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
)
# How many suffixes or names a line lists.
_LISTED = 8


class InputFile(NamedTuple):
    """An image to classify.

    Attributes:
      name: in the CSV.
      folder: the folder that it lies in, under a name that no other folder has.
      root: absolute path of the folder or zip of the input.
      inside: its path below the root.
      read: returns its bytes; raises UnreadableFile.
    """

    name: str
    folder: str
    root: PurePosixPath
    inside: str
    read: Callable[[], bytes]


class _Found(NamedTuple):
    root: PurePosixPath
    inside: str
    read: Callable[[], bytes]


@dataclass
class InputFiles:
    """What the inputs hold.

    Attributes:
      files: the images; their names differ.
      others: how many visible files are no images by their suffix, by suffix.
      passed_over: those of them that look like images all the same, if it was asked for.
      paths: the files and zips that are read, and paths inside zips.
    """

    files: list[InputFile] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)
    others: Counter[str] = field(default_factory=Counter)
    passed_over: list[str] = field(default_factory=list)


def find_input_files(inputs: list[str], archives: ExitStack, *, strict: bool) -> InputFiles:
    """Find the images of all inputs and log what is left out and which names were made longer.

    Args:
      inputs: images, folders (searched below), zips or glob patterns.
      archives: keeps the zips open.
      strict: also look into files that are no images by their suffix.

    Raises:
      UsageError: an input matches nothing.
      DataError: a zip or a folder cannot be read.
    """
    result = InputFiles()
    found = [file for text in inputs for file in _find(text, archives, result, strict)]
    # A file that is given twice is one cell.
    by_path: dict[str, _Found] = {}
    for file in found:
        by_path.setdefault(f"{file.root}/{file.inside}", file)
    once = list(by_path.values())
    result.paths = by_path.keys() | {str(file.root) for file in once}
    if len(once) < len(found):
        logger.warning(
            "--input: files that are given more than once: %s; each has one row", f"{len(found) - len(once):,}"
        )
    names, folders = _names(once), _folders(once)
    result.files = [InputFile(name, folder, *file) for name, folder, file in zip(names, folders, once, strict=True)]
    if result.others:
        count, kinds = f"{result.others.total():,}", by_suffix(result.others)
        logger.warning("--input: files that are no images by their suffix: %s (%s); they have no row", count, kinds)
    return result


def by_suffix(counts: Counter[str]) -> str:
    """Return counts by suffix as text, the most frequent first."""
    shown = [f"{printable(PurePosixPath(suffix))}: {n:,}" for suffix, n in counts.most_common(_LISTED)]
    return ", ".join([*shown, f"{len(counts) - _LISTED:,} more suffixes"] if len(counts) > _LISTED else shown)


def looks_like_image(path: PurePosixPath, first_bytes: bytes) -> bool:
    """Return whether a file is an image by a suffix that is not read, or by the first bytes of its content."""
    if path.suffix.lower() in _OTHER_IMAGES or first_bytes.startswith(_FIRST_BYTES):
        return True
    if first_bytes[:4] == b"RIFF":
        return first_bytes[8:12] == b"WEBP"
    if first_bytes[4:8] == b"ftyp":
        return first_bytes[8:12] in (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")
    # A text may begin with BM; two numbers that are always 0 tell it from a bitmap.
    return first_bytes[:2] == b"BM" and first_bytes[6:10] == bytes(4)


def _find(text: str, archives: ExitStack, result: InputFiles, strict: bool) -> Iterator[_Found]:
    text = os.path.expanduser(text)
    named = os.path.exists(text)
    paths = [Path(text)] if named else [Path(match) for match in sorted(glob.glob(text, recursive=True))]
    if not paths:
        raise UsageError(f"--input={text}: no such file, folder or match")
    for path in paths:
        root = PurePosixPath(os.path.abspath(path))
        if path.is_dir():
            yield from _below(root, read_folder(path), result, strict)
        elif path.is_file() and zipfile.is_zipfile(path):
            yield from _below(root, archives.enter_context(open_zip(path, str(path))), result, strict)
        # A pattern such as cells/* also matches what lies beside the images.
        elif named or is_image(PurePosixPath(path.name)) or looks_like_image(PurePosixPath(path.name), _start_of(path)):
            yield _Found(root.parent, path.name, partial(read_file, path, path.name))
        else:
            result.others[path.suffix.lower() or "none"] += 1


def _below(root: PurePosixPath, tree: FileTree, result: InputFiles, strict: bool) -> Iterator[_Found]:
    for path in tree.files:
        if is_image(path):
            yield _Found(root, str(path), partial(tree.read, path))
        elif not is_hidden(path):
            result.others[path.suffix.lower() or "none"] += 1
            if strict and looks_like_image(path, _start_in(tree, path)):
                result.passed_over.append(printable(path))
    if links := lost_folders(tree):
        logger.warning(
            "%s: links that lead nowhere, or of an archive: %s (%s); if they are folders, their images have no row",
            root,
            f"{len(links):,}",
            listed(map(printable, links)),
        )
        result.passed_over += map(printable, links) if strict else ()
    for name, reason in tree.refused.items():
        if is_image(PurePosixPath(name)):
            yield _Found(root, name, partial(_refuse, name, reason))


def _start_of(path: Path) -> bytes:
    if not path.is_file():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(32)
    except OSError:
        return b""


def _start_in(tree: FileTree, path: PurePosixPath) -> bytes:
    try:
        return tree.read(path)[:32]
    except UnreadableFile:
        return b""


def _refuse(name: str, reason: str) -> bytes:
    raise UnreadableFile(name, reason)


def _names(files: list[_Found]) -> list[str]:
    """Return a name for each file: its path below its root, after as much of the root as tells it from all others."""
    names, depth, example = _told_apart([(file.root, file.inside) for file in files])
    if example:
        longer = [printable(PurePosixPath(_end(root, n))) for root, n in depth.items() if n]
        logger.warning(
            "--input: several inputs hold a file %s; the names of their files begin with %s",
            printable(PurePosixPath(example)),
            listed(longer),
        )
    return names


def _folders(files: list[_Found]) -> list[str]:
    """Return a name for the folder of each file: the end of its path that tells it from all other folders."""
    paths = [(file.root / file.inside).parent for file in files]
    distinct = list(dict.fromkeys(paths))
    names, _, _ = _told_apart([(path.parent, path.name) for path in distinct])
    name_of = dict(zip(distinct, names, strict=True))
    return [name_of[path] for path in paths]


def _told_apart(places: list[tuple[PurePosixPath, str]]) -> tuple[list[str], dict[PurePosixPath, int], str | None]:
    """Return distinct names of places, how many parts of each root are in them, and a name that several would have.

    Args:
      places: a root, and a path below it.
    """
    depth, example = {root: 0 for root, _ in places}, None
    while True:
        names = [_end(root, depth[root]) + inside for root, inside in places]
        times = Counter(names)
        equal = [(root, name) for (root, _), name in zip(places, names, strict=True) if times[name] > 1]
        if not equal:
            return names, depth, example
        example = example or equal[0][1]
        for root in {root for root, _ in equal}:
            depth[root] += 1


def _end(root: PurePosixPath, depth: int) -> str:
    """Return the last `depth` parts of a path, with a slash behind them."""
    return f"{PurePosixPath(*root.parts[-depth:])}/" if depth else ""


def listed(names: Iterable[str]) -> str:
    """Return names as text, the first of them if they are many."""
    names = list(names)
    shown = ", ".join(names[:_LISTED])
    return f"{shown} and {len(names) - _LISTED:,} more" if len(names) > _LISTED else shown
