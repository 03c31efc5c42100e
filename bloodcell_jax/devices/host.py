"""What this process may use of the host: its cores and its memory."""

import contextlib
import functools
import os
import platform
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
from threadpoolctl import ThreadpoolController

from bloodcell_jax.errors import MachineError

_CGROUP = Path("/sys/fs/cgroup")
_CPU_INFO = Path("/proc/cpuinfo")
# The number of threads belongs to the process: two threads that set and restore it at once would leave 1 behind.
_BLAS_THREADS = threading.Lock()


def usable_cores() -> int:
    """Return how many cores this process may use; macOS does not tell, so there it is how many the host has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str | None:
    """Return the name of the processor, such as `AMD EPYC 9B14`; None if the host does not tell."""
    if _CPU_INFO.exists():  # Linux, where `platform.processor` is empty
        names = re.findall(r"^model name\s*:\s*(.+)$", _CPU_INFO.read_text(encoding="utf-8"), re.MULTILINE)
        return names[0].strip() if names else None
    return platform.processor() or None


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let NumPy's matrix products run on one thread inside the context, as is best for small ones.

    The threads of OpenBLAS wait for each other while other work has their cores. A product [1, 320] x [320, 2000] took
    28 ms with two threads on one busy core, and 0.07 ms with one (medians of 40, NumPy 2.4.6). The setting takes 12 us.
    """
    with _BLAS_THREADS, _thread_pools().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _thread_pools() -> ThreadpoolController:
    return ThreadpoolController()


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
