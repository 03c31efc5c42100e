"""Files that are whole or absent, also after a power loss, and one line for what the machine refuses."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from bloodcell_jax.errors import MachineError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a refusal of the machine to write a file into one line.

    Raises:
      MachineError: names the file and the reason.
    """
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"{path}: cannot be written ({error.strerror or error}); make room or make the folder writable, then run "
            "the same command again"
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path` that takes its place at the end: a reader sees the old file or the new one.

    The content is on the disk before the name is, so a power loss leaves one of the two as well.

    Raises:
      MachineError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # A new file of our own: what others put at that name, a link above all, is not written through.
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # A read-only folder refuses even what is not there.
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def creating_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that gets this name at the end, when its files are on the disk.

    Raises:
      MachineError: a file cannot be written, or there is something of this name.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with writing(path):
            temporary.mkdir()
            yield temporary
            for each in (*temporary.iterdir(), temporary):
                sync(each)
            temporary.rename(path)
            sync(path.absolute().parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporaries_of(path: Path) -> list[Path]:
    """Return what `replacing` left beside a file when its process was killed."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.tmp")
    if not path.parent.is_dir():
        return []
    return [found for found in path.parent.iterdir() if name.fullmatch(found.name)]
