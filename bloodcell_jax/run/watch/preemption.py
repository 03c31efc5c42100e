"""Stopping on a signal with the state saved."""

import contextlib
import os
import select
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import NoReturn

from bloodcell_jax.devices.process_end import end_process, say_end
from bloodcell_jax.devices.processes import end_all, place, stops_here
from bloodcell_jax.errors import StoppedError

# How long the main thread is given to end the run by itself, in order and with its worker processes, once nothing can
# be lost. It may wait for a batch.
_PATIENCE = 5.0
_POLL_SECONDS = 0.1


class StopSignals:
    """Remembers SIGTERM, SIGUSR1 and SIGINT while it is entered, for the loop to act on between two steps.

    A second SIGINT ends the process at once. Python takes no signals outside the main thread, so none is seen there.

    Attributes:
      is_saved: returns whether the run would lose nothing if it ended now.
    """

    _HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self, *, ends_process: bool = False, grace_seconds: float | None = None):
        """Create signals that are not watched yet.

        Args:
          ends_process: a signal also ends the process where the main thread does not look, in a compilation say, if
            the run would lose nothing.
          grace_seconds: a signal ends the process after this time, whatever the run loses; None: it does not.
        """
        self.is_saved: Callable[[], bool] = lambda: True
        self._received: signal.Signals | None = None
        self._answered = False
        self._ends_process, self._grace_seconds = ends_process, grace_seconds
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in self._HANDLED:
                self._undo.callback(signal.signal, number, signal.signal(number, self._remember))
            self._undo.enter_context(_read_by(self._watch))
        return self

    def __exit__(self, *exception) -> None:
        self._answered = True
        self._undo.close()

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        self._received = signal.Signals(number)

    def agreed(self) -> bool:
        """Return whether the run stops here; all processes must call it at the same places, and get the same answer."""
        if number := stops_here(self._received or 0):
            self._received = signal.Signals(number)
        return number != 0

    def error(self, where: str | None = None) -> StoppedError:
        """Return the error that ends the run, whose state is saved: exit code 130 for SIGINT, else 75."""
        self._answered = True
        return _stopped(self._received or signal.SIGTERM, where or place())

    def _watch(self, pipe: int) -> None:
        """Read signals from `pipe` in a thread of its own, and end the process where the main thread does not.

        Python runs a handler between two of its own instructions, so not while XLA compiles for a minute; but it
        writes the signal's number into the pipe at once.
        """
        number, since, saved_since, interrupts = None, 0.0, None, 0
        while True:
            readable, _, _ = select.select([pipe], [], [], None if number is None else _POLL_SECONDS)
            read = os.read(pipe, 1) if readable else None
            if read == b"":  # the other end is closed
                os.close(pipe)
                return
            now = time.monotonic()
            if read and read[0] in self._HANDLED:
                number, since = number or signal.Signals(read[0]), since or now
                interrupts += read[0] == signal.SIGINT
                self._say_once(read[0], interrupts)
            if number is None or self._answered:
                continue
            saved_since = (saved_since or now) if self.is_saved() else None
            if self._ends_process and saved_since is not None and now - saved_since >= _PATIENCE:
                self._end(_stopped(number, place()))
            if self._grace_seconds is not None and now - since >= self._grace_seconds:
                self._end(_stopped(number, f"{place()}, not saved within --grace_seconds={self._grace_seconds:g}"))

    def _say_once(self, number: int, interrupts: int) -> None:
        if number != signal.SIGINT:
            return
        if interrupts > 1:
            say_end()
            end_process(130)
        if not (self._ends_process and self.is_saved()):
            print("stopping with the state saved; once more to end at once", file=sys.stderr, flush=True)

    def _end(self, error: StoppedError) -> NoReturn:
        end_all(error)
        say_end(error)
        end_process(error.exit_code)


def _stopped(number: signal.Signals, where: str) -> StoppedError:
    code = 130 if number == signal.SIGINT else StoppedError.exit_code
    return StoppedError(f"stopped by {number.name} {where}; run the same command to resume", exit_code=code)


@contextlib.contextmanager
def _read_by(watch: Callable[[int], None]) -> Iterator[None]:
    """Have `watch` read the number of every signal from a pipe, in a thread, the moment that it comes."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=watch, args=(reader,), daemon=True, name="signals").start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        os.close(writer)  # ends the thread
