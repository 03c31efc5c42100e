"""The checksums of a checkpoint: whether its files are still those that were written."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from bloodcell_jax.whole_files import replacing, sync

# As `sha256sum` writes it: `cd checkpoints/STEP && sha256sum --check SHA256SUMS`.
NAME = "SHA256SUMS"


def write_checksums(folder: Path) -> None:
    """Write the checksums of all files of a folder; the files survive a power loss before the checksums exist.

    Raises:
      OSError, MachineError: the machine refuses.
    """
    lines = [f"{_sha256(path, durable=True)}  {path.relative_to(folder).as_posix()}\n" for path in _files(folder)]
    for parent, _, _ in os.walk(folder):
        sync(Path(parent))
    with replacing(folder / NAME) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def has_checksums(folder: Path) -> bool:
    """Return whether a folder holds checksums of its files."""
    return (folder / NAME).is_file()


def find_damage(folder: Path) -> str | None:
    """Return what is wrong with a folder that holds checksums; None: its files are those that were written."""
    try:
        lines = (folder / NAME).read_text(encoding="utf-8").splitlines()
        expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        found = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
        if expected.keys() != found.keys():
            name = min(expected.keys() ^ found.keys())
            return f"{name} is {'missing' if name in expected else 'not among its checksums'}"
        changed = (name for name, path in found.items() if _sha256(path) != expected[name])
        name = next(changed, None)
    except (OSError, ValueError) as error:
        return f"it cannot be read: {error}"
    return name and f"{name} has changed since it was written"


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a checkpoint; hidden ones are a file manager's or a file system's own."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != NAME and not path.name.startswith("."):
            yield path


def _sha256(path: Path, *, durable: bool = False) -> str:
    """Return the sha256 of a file, and if `durable` make its content survive a power loss."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if durable:
            os.fsync(file.fileno())
    return digest
