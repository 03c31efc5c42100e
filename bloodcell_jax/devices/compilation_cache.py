"""The persistent compilation cache: a second launch compiles nothing.

A kill while an entry is written leaves it truncated, and JAX neither repairs nor replaces it: every later launch would
warn and compile again. So entries written since the last launch are read once, and those that cannot be are deleted.
"""

import contextlib
import os
import zlib
from pathlib import Path

import jax

_ZSTANDARD_MAGIC = b"\x28\xb5\x2f\xfd"


def enable_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder; `JAX_COMPILATION_CACHE_DIR` wins."""
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if not folder:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = str(base / "bloodcell_jax" / "compilation")
        jax.config.update("jax_compilation_cache_dir", folder)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    with contextlib.suppress(OSError):  # A cache that cannot be looked after still works or is left unused by JAX.
        delete_truncated_entries(Path(folder))


def delete_truncated_entries(folder: Path) -> None:
    """Delete the entries that were written since the last call and are not whole."""
    checked = folder / ".checked"
    last_check = checked.stat().st_mtime if checked.exists() else 0
    for entry in folder.glob("*-cache"):
        # A second of slack: clocks of file systems are coarse, and reading an entry twice is cheap.
        if entry.stat().st_mtime >= last_check - 1 and not _is_whole(entry.read_bytes()):
            entry.unlink(missing_ok=True)
    if folder.is_dir():
        checked.touch()


def _is_whole(content: bytes) -> bool:
    """Return whether an entry can be decompressed to its end; JAX writes zstandard if it is installed, else zlib."""
    if content.startswith(_ZSTANDARD_MAGIC):
        return _is_whole_zstandard(content)
    try:
        zlib.decompress(content)
    except zlib.error:
        return False
    return True


def _is_whole_zstandard(content: bytes) -> bool:
    try:
        import zstandard  # pyright: ignore[reportMissingImports] - JAX uses it if it is there
    except ImportError:  # Written by another environment; without this package JAX would not read it either.
        return False
    try:
        zstandard.ZstdDecompressor().decompress(content)
    except zstandard.ZstdError:
        return False
    return True
