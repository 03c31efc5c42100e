"""A profiler's trace of a few training steps."""

import logging
from pathlib import Path
from typing import Any

import jax

_log = logging.getLogger(__name__)


class StepProfiler:
    """Traces the steps of a range into a folder; with an empty range it does nothing.

    A resumed run that is past the first of them traces nothing and says so: half a range would mislead.
    """

    def __init__(self, folder: Path, steps: range):
        self._folder, self._steps, self._running = folder, steps, False

    def begin(self, step: int) -> None:
        """Say that training begins, or goes on, at `step`."""
        if self._steps and step > self._steps.start:
            _log.info("--profile_steps: the run is at step %d, past %d; no trace", step, self._steps.start)

    def before_step(self, step: int) -> None:
        """Start the trace if this is the first step of the range."""
        if self._steps and step == self._steps.start:
            jax.profiler.start_trace(self._folder)
            self._running = True

    def after_step(self, step: int, outputs: Any) -> None:
        """End the trace, once `outputs` are there, if `step` updates are finished and the range with them."""
        if self._running and step == self._steps.stop:
            jax.block_until_ready(outputs)
            self.close()
            _log.info(
                "profile: %s; look at it by pip install xprof && xprof --logdir=%s, or open its trace.json.gz in "
                "https://ui.perfetto.dev",
                self._folder,
                self._folder,
            )

    def close(self) -> None:
        """End a trace that is still running."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
