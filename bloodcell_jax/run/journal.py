"""What a run tells: its progress to a person, its metrics to a file and to sinks."""

import contextlib

from bloodcell_jax.names import visible
from bloodcell_jax.run.tracking.feed import Feed
from bloodcell_jax.run.watch.meter import Line
from bloodcell_jax.run.watch.progress import Progress
from bloodcell_jax.run.watch.skipped import SkippedStep
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_lines import JsonLines
from bloodcell_jax.workdir.records import check_bad_step, check_metrics_line

# How many examples of a skipped step a line lists; bad_steps.jsonl has them all.
_LISTED = 8


class Journal:
    """Shows progress and keeps the log while it is entered; only the first process of a run speaks."""

    def __init__(
        self, workdir: Workdir, feed: Feed, *, first_step: int, total_steps: int, batch_size: int, is_main: bool
    ):
        self._workdir, self._feed, self._first_step, self._is_main = workdir, feed, first_step, is_main
        self._total_steps, self._batch_size = total_steps, batch_size
        self.progress = Progress(first_step, total_steps, quiet=not is_main)
        self._log: JsonLines | None = None
        self._bad_steps: JsonLines | None = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Journal":
        if self._is_main:
            metrics = JsonLines(self._workdir.metrics, check_metrics_line, first_step=self._first_step)
            self._log = self._open.enter_context(contextlib.closing(metrics))
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
            self._feed.write(self._log.write(line | val if line is lines[-1] else line))
            self.progress.show(line, self._batch_size)
        if val:
            values = "  ".join(f"{name} {value:.4f}" for name, value in val.items())
            self.progress.note(f"step {lines[-1]['step']}/{self._total_steps}  {values}")

    def write_skipped(self, skipped: SkippedStep, ids: list[str]) -> None:
        """Log and show a step that was skipped, with the ids of its examples."""
        if self._bad_steps is None:
            return
        self._bad_steps.write({"step": skipped.step, "reason": skipped.reason, "loss": skipped.loss, "ids": ids})
        shown = visible(", ".join(ids[:_LISTED]) + (" ..." if len(ids) > _LISTED else ""))
        place = f"step {skipped.step}/{self._total_steps}"
        self.progress.note(f"{place}  skipped, because {skipped.why}; its examples: {shown}")

    def sync(self) -> None:
        """Make all lines survive a crash of the machine."""
        if self._log and self._bad_steps:
            self._log.sync()
            self._bad_steps.sync()

    def commit(self, step: int) -> None:
        """Take in that a checkpoint of a step is committed: no line up to it will be written again."""
        self._feed.commit(step)
