"""Metrics on disk: `metrics.jsonl`, one object per logged step, and TensorBoard events beside it."""

import json
import math
import os
from pathlib import Path

from bloodcell_jax.workdir import read_metrics


class MetricsLog:
    """Writes `metrics.jsonl` and TensorBoard events of one run.

    Before a checkpoint of step s, `sync` makes every line up to s durable; opening at the step of a checkpoint cuts
    off the lines past it. So each step stands once, however often the run was killed.
    """

    def __init__(self, workdir: Path, *, first_step: int):
        from tensorboardX import SummaryWriter

        path = workdir / "metrics.jsonl"
        _cut_after(path, first_step)
        self._file = path.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(workdir), purge_step=first_step + 1 if first_step else None)

    def write(self, values: dict) -> None:
        """Append the values of one step; `step` is among them. Numbers that are not finite become null."""
        line = {name: _finite(value) for name, value in values.items()}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in line.items():
            if isinstance(value, float):
                self._events.add_scalar(name, value, values["step"])

    def sync(self) -> None:
        """Make everything written so far survive a crash of the machine."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close both files."""
        self.sync()
        self._file.close()
        self._events.close()


def _cut_after(path: Path, step: int) -> None:
    kept = [json.dumps(line) + "\n" for line in read_metrics(path.parent) if line["step"] <= step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(path)


def _finite(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value
