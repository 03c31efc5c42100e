"""Files that are whole or absent, also after a power loss, and one line for what the machine refuses."""

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bloodcell_jax.errors import DataError, MachineError
from bloodcell_jax.regular_files import check_regular_file
from bloodcell_jax.workdir.records import parse_json


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
            "the same command to resume"
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


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is whole or absent.

    Raises:
      MachineError: it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def update_json(path: Path, values: dict[str, Any]) -> None:
    """Set top-level values of a JSON file."""
    write_json(path, read_json(path) | values)


def read_json(path: Path) -> Any:
    """Read a JSON file of a workdir.

    Raises:
      DataError: it is missing or not JSON.
    """
    if not os.path.lexists(path):
        raise DataError(f"{path}: no such file; is {path.parent} the workdir of a run?")
    check_regular_file(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not JSON ({error}); delete it and run the command that wrote it") from error
    return parse_json(text, str(path))


def read_json_if_present(path: Path) -> Any:
    """Read a JSON file of a workdir; None if there is none."""
    return read_json(path) if path.exists() else None
