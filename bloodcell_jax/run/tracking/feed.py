"""Feeds the sinks of a run with the lines of `metrics.jsonl`, each value once however often the run is killed."""

import logging
import os
import re
import time
from collections.abc import Sequence
from typing import Any

from bloodcell_jax.config import Config
from bloodcell_jax.errors import MachineError
from bloodcell_jax.run.tracking.sinks import SINKS, Sink
from bloodcell_jax.workdir import Workdir

logger = logging.getLogger(__name__)

# The training stands still while a server does not answer: 20 s in 5 minutes are 7 %.
_SECONDS_BETWEEN_TRIES = 300


class Feed:
    """Feeds the sinks of a run while it is entered.

    A resumed run repeats the steps past its checkpoint. A sink that hides what is repeated gets each line at once. Any
    other gets a line when a checkpoint of its step, or of a later one, is committed: what it has is never taken back.
    """

    def __init__(self, workdir: Workdir, config: Config, names: Sequence[str], first_step: int):
        """Read what earlier processes logged up to the step from which the run goes on; `names` are keys of `SINKS`."""
        at_once = [name for name in names if SINKS[name].hides_repeated]
        self._at_once = [SINKS[name].open(workdir, config, first_step) for name in at_once]
        late = [name for name in names if name not in at_once]
        lines = [line for line in workdir.read_metrics() if line["step"] <= first_step] if late else []
        self._late = [_LateSink(name, workdir, config, first_step, lines) for name in late]

    def __enter__(self) -> "Feed":
        for sink in self._late:
            sink.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest) -> None:
        for sink in (*self._late, *self._at_once):
            sink.close(finished=kind is None)

    def write(self, line: dict[str, Any]) -> None:
        """Take a line that was written to `metrics.jsonl`."""
        for sink in self._at_once:
            sink.write([line])
        for sink in self._late:
            sink.waiting.append(line)

    def commit(self, step: int) -> None:
        """Take in that a checkpoint of a step is committed: no line up to it will be written again."""
        for sink in self._late:
            sink.send(step)


class _LateSink:
    """A sink that gets committed lines alone. Where it fails the run goes on, and what it lacks waits.

    Attributes:
      waiting: lines that this process has not given to it.
    """

    def __init__(self, name: str, workdir: Workdir, config: Config, first_step: int, lines: Sequence[dict[str, Any]]):
        self._name, self._workdir, self._config, self._first_step = name, workdir, config, first_step
        self.waiting = list(lines)
        self._sink: Sink | None = None
        self._fails, self._next_try = False, 0.0

    def open(self) -> None:
        """Open it before the first step.

        Raises:
          MachineError: it cannot be reached, and the run is new: somebody is there to mend it.
        """
        try:
            self._reach()
        except Exception as error:  # Clients of servers raise many kinds.
            if self._first_step == 0:
                advice = f"{SINKS[self._name].advice}, or leave {self._name} out"
                raise MachineError(f"--log_to={self._name}: {without_secrets(error)}; {advice}") from error
            self._warn(error)

    def send(self, step: int) -> None:
        """Give it the lines up to a step, and what it could not be given before, unless it failed a moment ago."""
        if time.monotonic() < self._next_try:
            return
        ready = [line for line in self.waiting if line["step"] <= step]
        try:
            if ready:
                self._reach().write(ready)
        except Exception as error:  # As above; and training is worth more than its copy.
            self._warn(error)
        else:
            self.waiting, self._fails = self.waiting[len(ready) :], False

    def close(self, *, finished: bool) -> None:
        """End it, and say what it lacks of a finished run."""
        try:
            if self._sink is not None:
                self._sink.close(finished=finished)
        except Exception as error:  # As above.
            self._warn(error)
        if finished and self.waiting:
            logger.warning("--log_to=%s: lacks %d lines; the same command sends them", self._name, len(self.waiting))

    def _reach(self) -> Sink:
        if self._sink is None:
            self._sink = SINKS[self._name].open(self._workdir, self._config, self._first_step)
        return self._sink

    def _warn(self, error: Exception) -> None:
        """Say why it takes nothing, once in a series of failures."""
        if not self._fails:
            reason = without_secrets(error)
            logger.warning("--log_to=%s: %s; the run goes on, what it lacks is sent later", self._name, reason)
        self._fails, self._next_try = True, time.monotonic() + _SECONDS_BETWEEN_TRIES


def without_secrets(error: Exception) -> str:
    """Return a client's message in one line, without the user of an address and the values of secret variables."""
    text = re.sub(r"//[^/@\s]+@", "//***@", " ".join(str(error).split()) or type(error).__name__)
    for name, value in os.environ.items():
        if re.search(r"(KEY|TOKEN|PASSWORD|SECRET)$", name) and len(value) > 3:
            text = text.replace(value, "***")
    return text
