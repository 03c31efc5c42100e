"""Which paths may be opened for reading: regular files, and nothing that could block or never end."""

import os
import stat
from pathlib import Path

from bloodcell_jax.errors import DataError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def check_regular_file(path: Path | str, name: str | None = None) -> None:
    """Check that a path leads to a regular file: to open a pipe may wait forever, and a device may have no end.

    Args:
      path: the file, or a link to it.
      name: what messages call it; None: the path.

    Raises:
      DataError: there is no such file, or the path leads to something else; says to what.
    """
    if fault := fault_of_file(path):
        raise DataError(f"{path if name is None else name}: {fault}; give the path of a regular file")


def fault_of_file(path: Path | str) -> str:
    """Return why a path may not be opened for reading; empty if it leads to a regular file."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "a link to nothing" if os.path.islink(path) else "no such file or folder"
    except (OSError, ValueError) as error:  # A path with a NUL character is a ValueError.
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if stat.S_ISREG(mode):
        return ""
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "no regular file")
