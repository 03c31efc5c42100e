"""Stopping on a signal with the state saved."""

import signal
import types

import jax
import numpy as np

from bloodcell_jax.errors import StoppedError


class StopSignals:
    """Remembers SIGTERM, SIGUSR1 and SIGINT while it is entered, for the loop to act on between two steps.

    A second SIGINT ends at once.
    """

    _HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self):
        self._received: signal.Signals | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        for number in self._HANDLED:
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        if number == signal.SIGINT and self._received == signal.SIGINT:
            raise KeyboardInterrupt
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
        code = 130 if self._received == signal.SIGINT else 75
        return StoppedError(f"stopped by {self._received.name} {where}; run the same command to go on", code)
