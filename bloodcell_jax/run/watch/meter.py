"""The time that training takes, and the lines that logged steps leave."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import jax

from bloodcell_jax.run.run import Run
from bloodcell_jax.run.watch.utilization import Utilization
from bloodcell_jax.train.stages import TrainingStage
from bloodcell_jax.train.step import Batch, Metrics

# The values of one logged step, as metrics.jsonl holds them.
Line = dict[str, Any]


class TrainingClock:
    """Counts the seconds of training alone; compiling, evaluating and saving are left out."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._since = 0.0

    def start(self) -> None:
        """Go on counting."""
        self._since = time.monotonic()

    def lap(self) -> float:
        """Return the seconds since `start` or the last lap, and count them."""
        now = time.monotonic()
        elapsed, self._since = now - self._since, now
        self.seconds += elapsed
        return elapsed

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count the seconds inside the context."""
        self.start()
        yield
        self.lap()


class StageMeter:
    """Turns the metrics of a stage's logged steps into lines, one logging interval late.

    So the host reads what the devices finished long ago, and never waits for a step that still runs.
    """

    def __init__(self, run: Run, stage: TrainingStage, clock: TrainingClock, step: int):
        self._run, self._stage, self._clock = run, stage, clock
        self._utilization = Utilization.of_stage(run, stage)
        self._pending: tuple[int, Metrics] | None = None
        self._waited = 0.0
        self._measured_step = step
        clock.start()

    def next_of(self, batches: Iterator[Batch]) -> Batch:
        """Return the next batch, and count the seconds that the step waits for it."""
        start = time.monotonic()
        batch = next(batches)
        self._waited += time.monotonic() - start
        return batch

    def lines(self, step: int, metrics: Metrics, *, log: bool, now: bool) -> list[Line]:
        """Return the lines that are due after `step` finished steps, in order.

        Args:
          metrics: what the step said of itself.
          log: the step is logged; its line is due at the next logged step.
          now: every line is due, however long the devices take for it.
        """
        due = []
        if log:
            due += self._fetch()
            self._pending = (step, metrics)
        return due + self._fetch() if now else due

    def _fetch(self) -> list[Line]:
        """Return the line of the pending step, waiting for that step; nothing if none is pending."""
        if self._pending is None:
            return []
        (step, metrics), self._pending = self._pending, None
        values = {name: value.item() for name, value in jax.device_get(metrics).items() if name != "bad_steps"}
        seconds, batch_size = self._clock.lap(), self._run.config.train.batch_size
        images_per_second = (step - self._measured_step) * batch_size / seconds
        waited, self._waited, self._measured_step = self._waited, 0.0, step
        line = {
            "step": step,
            "stage": self._stage.name,
            "epoch": step * batch_size / self._run.sampler.epoch_size,
            **values,
            "perf/images_per_second": images_per_second,
            "perf/mfu": self._utilization.mfu(images_per_second),
            "perf/data_wait": waited / seconds,
        }
        return [line]

    @contextlib.contextmanager
    def paused(self, step: int, state: Any) -> Iterator[None]:
        """Wait for the state after `step` steps, and leave out what is done inside the context."""
        jax.block_until_ready(state)
        self._clock.lap()
        yield
        # What was waited for before is of no line: its time was left out as well.
        self._waited, self._measured_step = 0.0, step
        self._clock.start()
