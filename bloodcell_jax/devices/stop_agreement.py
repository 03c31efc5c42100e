"""Where all processes of a run stop when one of them is told to."""

import json
import threading
from collections.abc import Callable


class StopAgreement:
    """Finds a place in the run that no process has passed yet, without a collective operation.

    Places are between two steps or two batches of an evaluation, the same in all processes. A process that is told to
    stop says how many it has passed, and waits at the next one. The others see that and do the same. When all have
    said it, they go on to the place after the furthest. Threads talk, because a main thread may be inside a collective
    operation, and another one that waits for the agreement has done its part of that already.
    """

    def __init__(self, count: int, say: Callable[[str], None], said: Callable[[], dict[int, str]]):
        """Create the view of one process.

        Args:
          count: how many processes there are.
          say: leaves a text of this process where all find it.
          said: returns the texts of all processes so far, by process.
        """
        self._count, self._say, self._said = count, say, said
        self._changed = threading.Condition()
        self._passed = self._signal = 0
        self._report: str | None = None
        self._stop: tuple[int, int] | None = None  # the place and the signal

    def pass_place(self, signal: int) -> int:
        """Return the signal by which the run stops here, 0 if it goes on; may wait for the agreement.

        Args:
          signal: that this process was sent; 0 if none.
        """
        with self._changed:
            self._signal = self._signal or signal
            self._changed.wait_for(lambda: self._report is None or self._stop)
            self._passed += 1
            place, agreed = self._stop or (self._passed + 1, 0)
            return agreed if self._passed >= place else 0

    def advance(self) -> None:
        """Say and hear what is due; a thread calls this again and again."""
        if self._stop:
            return
        said = self._said()
        with self._changed:
            if self._report is None and (self._signal or said):
                self._report = json.dumps([self._passed, self._signal])
            if len(said) == self._count:
                passed, signals = zip(*map(json.loads, said.values()), strict=True)
                self._stop = max(passed) + 1, max(signals)
                self._changed.notify_all()
        if self._report:
            self._say(self._report)
