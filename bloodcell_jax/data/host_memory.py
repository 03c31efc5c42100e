"""How much of the host's memory pictures may still take."""

import contextlib
from pathlib import Path

import psutil

from bloodcell_jax.errors import MachineError

_CGROUP = Path("/sys/fs/cgroup")


def free_host_memory() -> int:
    """Return how many bytes this process may still take: of the machine, or of its container where that has less."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no container, or no limit
        limit = int((_CGROUP / "memory.max").read_text())
        free = min(free, limit - int((_CGROUP / "memory.current").read_text()))
    return max(free, 0)


def check_fits(size: int, source: str) -> None:
    """Check that `size` bytes of pictures fit into memory, before hours of reading end in a killed process.

    Raises:
      MachineError: they do not; says what to do.
    """
    if size > (free := free_host_memory()):
        raise MachineError(
            f"{source}: {size / 1e9:,.1f} GB of pictures do not fit into host memory, of which {free / 1e9:,.1f} GB "
            "are free; stream them from a prepared set (tfds:, data.feed=streaming), or lower data.image_size"
        )
