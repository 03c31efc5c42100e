"""What a run tells: its progress to a person, its metrics to a file."""

import contextlib
import math

from bloodcell_jax.names import visible
from bloodcell_jax.run.watch.meter import Line
from bloodcell_jax.run.watch.progress import Progress
from bloodcell_jax.run.watch.skipped import SkippedStep
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_lines import JsonLines
from bloodcell_jax.workdir.metrics_log import MetricsLog
from bloodcell_jax.workdir.records import check_bad_step

# How many examples of a skipped step a line lists; bad_steps.jsonl has them all.
_LISTED = 8


class Journal:
    """Shows progress and keeps the log while it is entered; only the first process of a run speaks."""

    def __init__(self, workdir: Workdir, *, first_step: int, total_steps: int, batch_size: int, is_main: bool):
        self._workdir, self._first_step, self._is_main = workdir, first_step, is_main
        self._total_steps, self._batch_size = total_steps, batch_size
        self.progress = Progress(first_step, total_steps, quiet=not is_main)
        self._log: MetricsLog | None = None
        self._bad_steps: JsonLines | None = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Journal":
        if self._is_main:
            self._log = self._open.enter_context(
                contextlib.closing(MetricsLog(self._workdir, first_step=self._first_step))
            )
            skipped = JsonLines(self._workdir.bad_steps, check_bad_step, first_step=self._first_step, optional=True)
            self._bad_steps = self._open.enter_context(contextlib.closing(skipped))
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

    def write_skipped(self, skipped: SkippedStep, ids: list[str]) -> None:
        """Log and show a step that was skipped, with the ids of its examples."""
        if self._bad_steps is None:
            return
        loss = skipped.loss if math.isfinite(skipped.loss) else None
        self._bad_steps.write({"step": skipped.step, "reason": skipped.reason, "loss": loss, "ids": ids})
        shown = visible(", ".join(ids[:_LISTED]) + (" ..." if len(ids) > _LISTED else ""))
        place = f"step {skipped.step}/{self._total_steps}"
        self.progress.note(f"{place}  skipped, because {skipped.why}; its examples: {shown}")

    def sync(self) -> None:
        """Make all lines survive a crash of the machine."""
        if self._log and self._bad_steps:
            self._log.sync()
            self._bad_steps.sync()
