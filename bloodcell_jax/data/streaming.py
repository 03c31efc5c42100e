"""Batches of images that are read in the order of a plan while earlier batches are in use.

Grain's workers read, decode and resize. A batch is a pure function of its number, so a stream can start at any batch.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from multiprocessing import resource_tracker
from typing import Any, Protocol, SupportsIndex

import numpy as np
from absl import flags

from bloodcell_jax.data.stored_images import StoredImages
from bloodcell_jax.devices.host import usable_cores
from bloodcell_jax.errors import MachineError, UserError

# Batches that are ready after `place`, and batches that each worker holds ready.
AHEAD, AHEAD_PER_WORKER = 2, 2
_MOST_WORKERS = 16
# Of each worker's queues and events, counted generously; one takes a page of /dev/shm.
_LOCKS_PER_WORKER = 16

_REMEDY = "memory or /dev/shm may be full: lower data.workers, or set it to 0, and run the same command to resume"


class Plan(Protocol):
    """The example indices of each batch, by the batch's number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> np.ndarray: ...


def default_workers() -> int:
    """Return the default number of decoding processes: half the cores this process may use, 16 at most."""
    return max(1, min(_MOST_WORKERS, usable_cores() // 2))


@contextlib.contextmanager
def open_stream(
    images: np.ndarray | StoredImages,
    plan: Plan,
    *,
    workers: int,
    place: Callable[[int, np.ndarray], Any] = lambda number, batch: batch,
    start: int = 0,
) -> Iterator[Iterator[Any]]:
    """Open the stream of `place(number, images[plan[number]])` for the batches from number `start` on.

    Everything runs ahead: the workers by some batches each, and `place`, in a thread of this process, by two. Nothing
    is left running when the context ends, or when this process is killed.

    Args:
      images: uint8 [n, h, w, 3]. If they are in memory, threads gather the batches, whatever `workers` says.
      plan: the indices of each batch; it is sent to the workers.
      workers: number of processes that decode; 0: threads of this process decode.
      place: makes something of a batch, for example puts it on the devices.
      start: number of the first batch.

    Yields:
      The iterator of the stream. While it is iterated, it raises DataError if an image cannot be read, and
      MachineError if a worker ended.
    """
    import grain

    # Grain reads absl flags of its own. Nobody parses them here, because every verb has FlagValues of its own.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    in_processes = workers > 0 and not isinstance(images, np.ndarray)
    if not in_processes:
        threads = default_workers() + 1
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    batches = grain.MapDataset.source(_Batches(images, plan))[start:].to_iter_dataset(options)
    if in_processes:
        batches = batches.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD_PER_WORKER),
            worker_init_fn=_end_with_parent,
        )
    # The copy frees the memory that is shared with the worker for its next batch, however long this batch lives.
    batches = batches.map(lambda batch: place(batch["number"], np.array(batch["images"])))
    batches = grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=AHEAD)
    if in_processes:
        _check_shared_memory(workers)
    with _signals_blocked():
        iterator = iter(batches)
        iterator.start_prefetch()
    named = _errors_named(iterator)
    try:
        yield named
    finally:
        iterator.close()
        named.close()
        del iterator, named
        # The iterator and its last batch refer to each other. Without a collection they would live until the process
        # ends, and Python would then warn of shared memory that nobody freed.
        gc.collect()


class _Batches:
    """Batches by their number, as grain reads them."""

    def __init__(self, images: np.ndarray | StoredImages, plan: Plan):
        self._images, self._plan = images, plan

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        number = int(index)
        return {"number": number, "images": self._images[self._plan[number]]}


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Keep signals to stop from the threads and processes that start inside the context.

    Ctrl-C goes to every process of a terminal, and SIGTERM to every process of a job. The run answers them, and it
    needs its workers until its last step is done.
    """
    # The tracker starts only once, and unblocks the signals when it starts.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent(_worker: int, _workers: int) -> None:
    """Watch the parent from a worker and end with it, because a killed parent tells nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"

    def watch() -> None:
        parent.join()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _errors_named(iterator: Iterator[Any]) -> Generator[Any, None, None]:
    """Yield the batches of the iterator; if a worker ended, raise one line that says so."""
    try:
        for batch in iterator:  # noqa: UP028 - `yield from` would also close the iterator
            yield batch
    except UserError:
        raise
    except RuntimeError as error:
        if "Worker process was terminated" not in str(error):
            raise
        code = str(error).partition("exit code ")[2].partition(".")[0]
        raise MachineError(f"data.workers: a worker ended with exit code {code}; {_REMEDY}") from error


def _check_shared_memory(workers: int) -> None:
    """Check that /dev/shm holds what starting the workers takes.

    Grain would leave a half-made iterator behind, which complains with a traceback when it is freed.

    Raises:
      MachineError: it does not.
    """
    try:
        locks = [multiprocessing.get_context("spawn").Lock() for _ in range(_LOCKS_PER_WORKER * workers)]
    except OSError as error:
        raise MachineError(f"data.workers: workers cannot be started ({error.strerror or error}); {_REMEDY}") from error
    del locks
