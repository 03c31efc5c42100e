"""Files below a folder or inside a zip archive, listed and read in the same way, and safely.

Nothing is ever unpacked to disk. Entries that an archive may not hold are refused by name, with the reason.
"""

import io
import logging
import mmap
import os
import stat
import struct
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import IO, cast

from bloodcell_jax.errors import DataError
from bloodcell_jax.names import visible
from bloodcell_jax.regular_files import check_regular_file, fault_of_file

logger = logging.getLogger(__name__)

# The size of an uncompressed image of 5,900 x 5,900 pixels. Several such files are in memory at a time while an archive
# is read.
MAX_FILE_BYTES = 100 * 2**20

# What stands before a file in a zip archive, and for it in the directory: the first bytes, and where the flags, the
# length of the name and the name are. This flag says that the name is UTF-8.
_HEADERS, _UTF_8 = ((b"PK\x03\x04", 6, 26, 30), (b"PK\x01\x02", 8, 28, 46)), 0x800
# Four thousand bytes of bzip2 unpack to 80 MB at most.
_PIECE_BYTES = 4096


class UnreadableFile(DataError):
    """A file that cannot be read as an image; `name` says which file, `reason` says why."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: cannot be read as an image ({reason}); replace or remove it")
        self.name, self.reason = name, visible(reason)


@dataclass(frozen=True)
class FileTree:
    """The files of a folder or an archive.

    Attributes:
      files: paths relative to the root, without refused files.
      folders: all folders, also the empty ones.
      read: returns the bytes of a file; raises UnreadableFile.
      refused: files that are not read, name -> reason.
      links: links that lead nowhere, and all links of an archive. Each may stand for a folder of images.
      sizes: bytes of each file of an archive, as it claims; it is never read further.
    """

    files: list[PurePosixPath]
    folders: set[PurePosixPath]
    read: Callable[[PurePosixPath], bytes]
    refused: dict[str, str] = field(default_factory=dict)
    links: tuple[PurePosixPath, ...] = ()
    sizes: dict[PurePosixPath, int] = field(default_factory=dict)


def printable(path: PurePosixPath) -> str:
    """Return a path as one line of printable UTF-8; other bytes and characters are escaped, as in `\\xff`."""
    return visible(str(path))


def example_id(path: PurePosixPath) -> str:
    """Return the printable id of a file; other than by `printable`, no two paths have the same.

    A backslash of the name itself is doubled, so that it is no escape.
    """
    return printable(PurePosixPath(str(path).replace("\\", "\\\\")))


def is_hidden(path: PurePosixPath) -> bool:
    """Return whether a path lies in what systems hide: names that begin with a dot, and a Mac's `__MACOSX`."""
    return any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in path.parts)


def class_name_of(folder: str) -> str:
    """Return the class that a folder is named for; accents get one spelling, because file systems use several."""
    return unicodedata.normalize("NFC", printable(PurePosixPath(folder)))


def read_folder(root: Path) -> FileTree:
    """List everything below a folder. Links are followed, because the folder's owner made them.

    A link to a folder whose files are read at their own place, or by another link, is not followed: a file has one
    place. This ends loops as well.

    Raises:
      DataError: a folder cannot be listed.
    """
    files, links, folders, seen, top = [], [], set(), set(), Path(os.path.realpath(root))
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_refuse_folder):
        real, inside = Path(os.path.realpath(folder)), PurePosixPath(Path(folder).relative_to(root).as_posix())
        for name in sorted(subfolders):
            path = Path(folder, name)
            target = Path(os.path.realpath(path))
            known = any(here.is_relative_to(target) for here in (real, top)) or _is_shown(target, top)
            if target in seen or (path.is_symlink() and known):
                where = printable(PurePosixPath(target))
                logger.warning(
                    "%s: left out, a link leads to %s, which is read already", printable(inside / name), where
                )
                subfolders.remove(name)
            elif not is_hidden(inside / name):
                seen.add(target)
        folders.update(inside / name for name in subfolders)
        files.extend(inside / name for name in names)
        places = {name: os.path.join(folder, name) for name in names}
        links.extend(inside / n for n, place in places.items() if os.path.islink(place) and not os.path.exists(place))

    return FileTree(sorted(files), folders, lambda path: read_file(root / path, printable(path)), links=tuple(links))


def _is_shown(folder: Path, top: Path) -> bool:
    """Return whether a folder lies below `top`, and no folder between them is hidden."""
    return folder.is_relative_to(top) and not is_hidden(PurePosixPath(folder.relative_to(top)))


def _refuse_folder(error: OSError) -> None:
    # Without this, its images would be missing in silence.
    raise DataError(f"{error.filename}: the folder cannot be listed ({error.strerror}); make it readable") from error


def read_file(path: Path, name: str) -> bytes:
    """Return the bytes of a file.

    Raises:
      UnreadableFile: the file cannot be read, exceeds MAX_FILE_BYTES or is no regular file; names it by `name`.
    """
    try:
        if fault := fault_of_file(path):
            raise UnreadableFile(name, fault)
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UnreadableFile(name, _too_large(path.stat().st_size))
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFile(name, error.strerror or str(error)) from error


@contextmanager
def open_zip(path: Path, source: str) -> Iterator[FileTree]:
    """List a zip archive, which stays open for reading inside the context.

    These entries are refused by name: paths that leave the archive, links, names that are empty or occur twice, and
    files above MAX_FILE_BYTES.

    Raises:
      DataError: it is no zip archive, or its files overlap, which happens only in a zip bomb.
    """
    check_regular_file(path, source)
    with _opened(lambda: _open(path), source) as tree:
        yield tree


@contextmanager
def open_zip_content(content: bytes, source: str) -> Iterator[FileTree]:
    """List a zip archive that is in memory; the same as `open_zip` in everything else."""
    with _opened(lambda: _open_content(content), source) as tree:
        yield tree


@contextmanager
def _opened(open_archive: Callable[[], zipfile.ZipFile], source: str) -> Iterator[FileTree]:
    try:
        archive = open_archive()
    except Exception as error:  # zipfile raises nearly everything on malformed files.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{source}: cannot be read as a zip archive ({reason}); copy or download it again") from error
    with archive:
        infos = archive.infolist()
        if _overlap(infos):
            raise DataError(f"{source}: files inside the archive overlap, as in a zip bomb; copy or download it again")
        names = [PurePosixPath(_name(info)) for info in infos]
        times = Counter(name for name, info in zip(names, infos, strict=True) if not _is_folder(info))
        files: dict[PurePosixPath, zipfile.ZipInfo] = {}
        folders: set[PurePosixPath] = set()
        refused: dict[str, str] = {}
        for name, info in zip(names, infos, strict=True):
            if _is_folder(info):
                folders.add(name)
            elif reason := _refusal(name, info, times[name]):
                refused[printable(name)] = reason
            else:
                files[name] = info
                folders.update(name.parents)

        def read(name: PurePosixPath) -> bytes:
            try:
                return _unpacked(archive, files[name])
            except MemoryError:
                raise  # The limits hold for the file, so it is the machine's fault.
            except Exception as error:  # zipfile and its decompressors raise nearly everything on malformed files.
                raise UnreadableFile(printable(name), str(error) or type(error).__name__) from error

        links = tuple(name for name, info in zip(names, infos, strict=True) if _is_link(info))
        sizes = {name: info.file_size for name, info in files.items()}
        yield FileTree(list(files), folders, read, refused, links, sizes)


def _open(path: Path) -> zipfile.ZipFile:
    """Open an archive; names that are marked as UTF-8 and are not are read in the archives' old code page."""
    try:
        return zipfile.ZipFile(path)
    except UnicodeDecodeError:
        with path.open("rb") as file:
            content = _MappedFile(file.fileno(), 0, access=mmap.ACCESS_COPY)
        _unmark_names(content)
        return zipfile.ZipFile(cast(IO[bytes], content))


def _open_content(content: bytes) -> zipfile.ZipFile:
    """Open an archive in memory, as `_open` does."""
    try:
        return zipfile.ZipFile(io.BytesIO(content))
    except UnicodeDecodeError:
        copy = bytearray(content)
        _unmark_names(copy)
        return zipfile.ZipFile(io.BytesIO(copy))


class _MappedFile(mmap.mmap):
    """A mapped file that has all that zipfile asks of a file."""

    def seekable(self) -> bool:
        """Return that any place can be read."""
        return True


def _unmark_names(content: mmap.mmap | bytearray) -> None:
    """Take the mark for UTF-8 off the names that are not UTF-8; of a mapped file, the file is not changed."""
    for mark, flags_at, length_at, name_at in _HEADERS:
        at = content.find(mark)
        while at >= 0 and at + name_at <= len(content):
            (flags,), (length,) = (struct.unpack_from("<H", content, at + place) for place in (flags_at, length_at))
            try:
                content[at + name_at : at + name_at + length].decode()
            except UnicodeDecodeError:
                struct.pack_into("<H", content, at + flags_at, flags & ~_UTF_8)
            at = content.find(mark, at + len(mark))


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return the bytes of an entry, never more than it claims."""
    with archive.open(info) as file:
        if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return file.read()
        # The other methods unpack at once what is read of the archive at once, and that may be a bomb.
        return b"".join(iter(lambda: file.read(_PIECE_BYTES), b""))


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith("/")


def _is_link(info: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(info.external_attr >> 16)


def _name(info: zipfile.ZipInfo) -> str:
    """Return the intended name of an entry: some writers leave out the mark for UTF-8, some write backslashes."""
    name = info.filename
    if not info.flag_bits & _UTF_8 and not name.isascii():
        with suppress(UnicodeError):  # The name is in the archives' old code page after all.
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


def _refusal(name: PurePosixPath, info: zipfile.ZipInfo, times: int) -> str | None:
    if name.is_absolute() or ".." in name.parts or (name.parts[:1] and name.parts[0].endswith(":")):
        return "its path leads out of the archive"
    if not name.parts:
        return "an empty name"
    if _is_link(info):
        return "a symbolic link"
    if times > 1:
        return f"its name occurs {times} times in the archive"
    return _too_large(info.file_size) if info.file_size > MAX_FILE_BYTES else None


def _too_large(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB; an image file may have at most {MAX_FILE_BYTES // 2**20}"


def _overlap(infos: list[zipfile.ZipInfo]) -> bool:
    """Return whether two entries share bytes.

    Shared bytes let 42 kB unpack to terabytes (Fifield, A better zip bomb, 2019).
    """
    ordered = sorted(infos, key=lambda info: info.header_offset)
    return any(one.header_offset + one.compress_size > other.header_offset for one, other in pairwise(ordered))
