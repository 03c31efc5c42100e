"""Stopping on a signal with the state saved."""

import contextlib
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator

import jax
import numpy as np

from bloodcell_jax.errors import StoppedError


class StopSignals:
    """Remembers SIGTERM, SIGUSR1 and SIGINT while it is entered, for the loop to act on between two steps.

    A second SIGINT ends the process at once. Python takes no signals outside the main thread, so none is seen there.
    """

    _HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self):
        self._received: signal.Signals | None = None
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in self._HANDLED:
                self._undo.callback(signal.signal, number, signal.signal(number, self._remember))
            self._undo.enter_context(_interrupts_watched())
        return self

    def __exit__(self, *exception) -> None:
        self._undo.close()

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        self._received = signal.Signals(number)

    def received(self) -> bool:
        """Return whether this process was told to stop."""
        return self._received is not None

    def agreed(self) -> bool:
        """Return whether any process was told to stop; all processes must call it at the same step."""
        if jax.process_count() == 1:
            return self.received()
        from jax.experimental.multihost_utils import process_allgather

        numbers = np.asarray(process_allgather(np.int32(self._received or 0)))
        if numbers.any() and self._received is None:
            self._received = signal.Signals(int(numbers.max()))
        return bool(numbers.any())

    def error(self, where: str) -> StoppedError:
        """Return the error that ends the run: exit code 130 for SIGINT, else 75."""
        received = self._received or signal.SIGTERM
        code = 130 if received == signal.SIGINT else 75
        return StoppedError(f"stopped by {received.name} {where}; run the same command to resume", code)


@contextlib.contextmanager
def _interrupts_watched() -> Iterator[None]:
    """Answer every SIGINT the moment it comes.

    Python runs a handler between two of its own instructions, so not while XLA compiles for a minute; but
    it writes the signal's number into this pipe at once, and a thread can read it.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_answer_interrupts, args=(reader,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        os.close(writer)  # ends the thread


def _answer_interrupts(reader: int) -> None:
    interrupts = 0
    with open(reader, "rb", buffering=0) as pipe:
        while number := pipe.read(1):
            interrupts += number[0] == signal.SIGINT
            if interrupts == 2:
                # A progress bar hides the cursor, and nothing else will bring it back.
                print("\x1b[?25h" if sys.stderr.isatty() else "", end="", file=sys.stderr, flush=True)
                os._exit(130)
            if number[0] == signal.SIGINT:
                print("stopping with the state saved; once more to end at once", file=sys.stderr, flush=True)
