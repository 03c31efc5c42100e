"""Batches of images read while others are worked on, in the order of a plan.

Grain's workers read, decode and resize. What they read is a pure function of the batch's number, so a stream starts
anywhere.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any

import numpy as np
from absl import flags

from bloodcell_jax.data.stored_images import StoredImages
from bloodcell_jax.errors import MachineError, UserError

# Batches that are ready, on the devices where they are placed there, and that each worker holds ready.
AHEAD, AHEAD_PER_WORKER = 2, 2
_MOST_WORKERS = 16


def default_workers() -> int:
    """Return how many processes decode unless told: half the cores this process may use, 16 at most."""
    return max(1, min(_MOST_WORKERS, len(os.sched_getaffinity(0)) // 2))


@contextlib.contextmanager
def open_stream(
    images: np.ndarray | StoredImages,
    plan: Sequence[np.ndarray],
    *,
    workers: int,
    place: Callable[[int, np.ndarray], Any] = lambda number, batch: batch,
    start: int = 0,
) -> Iterator[Iterator[Any]]:
    """Open the stream of `place(number, images[plan[number]])` for the batches from `start` on.

    Everything runs ahead: the workers by some batches each, `place`, in a thread of this process, by two. Nothing is
    left running when the context is left, nor when this process is killed.

    Args:
      images: uint8 [n, h, w, 3]; images in memory are gathered by threads, whatever `workers` says.
      plan: the indices of each batch; it is sent to the workers.
      workers: processes that decode; 0: threads of this one.
      place: what to make of a batch, such as putting it on the devices.

    Raises, while it is iterated:
      DataError: an image cannot be read.
      MachineError: a worker ended.
    """
    import grain

    # Grain reads flags of its own, which nobody parses where ours are (a FlagValues for each verb).
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
    # Copied out of the memory shared with the worker, which is then free for the next, however long this one lives.
    batches = batches.map(lambda batch: place(batch["number"], np.array(batch["images"])))
    batches = grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=AHEAD)
    with _signals_blocked():
        iterator = iter(batches)
        iterator.start_prefetch()
    told = _errors_told(iterator)
    try:
        yield told
    finally:
        iterator.close()
        told.close()
        del iterator, told
        # The iterator and its last batch refer to each other; left until the process ends, Python would complain of
        # shared memory that nobody freed.
        gc.collect()


class _Batches:
    """Batches by their number, as grain reads them."""

    def __init__(self, images: np.ndarray | StoredImages, plan: Sequence[np.ndarray]):
        self._images, self._plan = images, plan

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"number": int(number), "images": self._images[self._plan[number]]}


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Have the threads and processes that are started inside never hear of a signal to stop.

    Ctrl-C goes to every process of a terminal, SIGTERM to every process of a job; the run answers them, and needs its
    workers until its last step is done.
    """
    # It is started once, and unblocks signals when it is.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent(_worker: int, _workers: int) -> None:
    """Watch the parent from a worker and end with it: one that was killed tells nobody."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _errors_told(iterator: Iterator[Any]) -> Iterator[Any]:
    try:
        for batch in iterator:  # noqa: UP028 - `yield from` would hand it our own close
            yield batch
    except UserError:
        raise
    except RuntimeError as error:
        if "Worker process was terminated" not in str(error):
            raise
        code = str(error).partition("exit code ")[2].partition(".")[0]
        raise MachineError(
            f"data.workers: a worker ended with exit code {code}; memory or /dev/shm may be full: lower data.workers, "
            "or set it to 0, and run the same command to go on"
        ) from error
