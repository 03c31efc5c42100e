"""How the C library hands out memory to the command line's process."""

import os
import sys

# Large allocations in huge pages, from one heap that keeps what is freed. Both thresholds are 16 GiB, above what a step
# allocates: what passes them goes back to the kernel, and the kernel clears each page before it is used again.
_SETTINGS = ":".join(
    (
        "glibc.malloc.hugetlb=1",
        "glibc.malloc.arena_max=1",
        "glibc.malloc.mmap_threshold=17179869184",
        "glibc.malloc.trim_threshold=17179869184",
    )
)


def tune_allocator() -> None:
    """Begin the process again with an allocator that suits XLA:CPU, if nobody set up the allocator; Linux only.

    XLA:CPU allocates the temporary memory of a step, a gigabyte for ConvNeXt-Tiny, anew for each one, and the kernel
    clears it: a fifth of the step (docs/performance.md). The C library reads the settings when a process starts; they
    are not handed on to the processes that this one starts.
    """
    if sys.platform != "linux":
        return
    if "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = _SETTINGS
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    if os.environ["GLIBC_TUNABLES"] == _SETTINGS:
        del os.environ["GLIBC_TUNABLES"]


def allocator_environment() -> dict[str, str]:
    """Return the environment that gives a process the allocator of `tune_allocator`; empty where nothing was set up."""
    return {"GLIBC_TUNABLES": _SETTINGS} if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ else {}
