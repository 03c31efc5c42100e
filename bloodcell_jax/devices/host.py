"""What this process may use of the host: its cores and its memory."""

import contextlib
import os
from pathlib import Path

import psutil

from bloodcell_jax.errors import MachineError

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return how many cores this process may use; macOS does not tell, so there it is how many the host has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_host_memory() -> int:
    """Return how many bytes this process may still take: of the machine, or of its container if that has less."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no container, or no limit
        limit = int((_CGROUP / "memory.max").read_text())
        free = min(free, limit - int((_CGROUP / "memory.current").read_text()))
    return max(free, 0)


def check_fits(size: int, source: str) -> None:
    """Check that `size` bytes of images fit into memory, before hours of reading end in a killed process.

    Raises:
      MachineError: they do not; says what to do.
    """
    if size > (free := free_host_memory()):
        raise MachineError(
            f"{source}: {size / 1e9:,.1f} GB of images do not fit into host memory; {free / 1e9:,.1f} GB are free. "
            "Stream them from a prepared dataset (tfds:, data.feed=streaming), or lower data.image_size"
        )
