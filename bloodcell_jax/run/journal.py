"""What a run tells: its progress to a person, its metrics to a file."""

import contextlib

from bloodcell_jax.run.watch.meter import Line
from bloodcell_jax.run.watch.progress import Progress
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.metrics_log import MetricsLog


class Journal:
    """Shows progress and keeps the log while it is entered; only the first process of a run speaks."""

    def __init__(self, workdir: Workdir, *, first_step: int, total_steps: int, batch_size: int, is_main: bool):
        self._workdir, self._first_step, self._is_main = workdir, first_step, is_main
        self._total_steps, self._batch_size = total_steps, batch_size
        self.progress = Progress(first_step, total_steps, quiet=not is_main)
        self._log: MetricsLog | None = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Journal":
        if self._is_main:
            self._log = self._open.enter_context(
                contextlib.closing(MetricsLog(self._workdir, first_step=self._first_step))
            )
        self._open.enter_context(self.progress)
        return self

    def __exit__(self, *exception) -> None:
        self._open.close()

    def write(self, lines: list[Line], val: dict[str, float | None]) -> None:
        """Log and show lines; the last one gets what an evaluation after its step gave."""
        if self._log is None:
            return
        for line in lines:
            self._log.write(line | val if line is lines[-1] else line)
            self.progress.show(line, self._batch_size)
        if val:
            values = "  ".join(f"{name} {value:.4f}" for name, value in val.items())
            self.progress.note(f"step {lines[-1]['step']}/{self._total_steps}  {values}")

    def sync(self) -> None:
        """Make all lines survive a crash of the machine."""
        if self._log:
            self._log.sync()
