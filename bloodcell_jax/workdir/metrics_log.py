"""Metrics on disk: `metrics.jsonl`, one object per logged step, and TensorBoard events beside it."""

import contextlib
import json
import math
import os
import time
from pathlib import Path
from typing import Any

from bloodcell_jax.whole_files import replacing, writing
from bloodcell_jax.workdir.layout import EVENTS_END, Workdir


class MetricsLog:
    """Writes `metrics.jsonl` and TensorBoard events of one run.

    `sync` makes every line up to step s durable before a checkpoint of step s is saved; opening the log at the step of
    a checkpoint cuts off the lines past it. So each step stands once, however often the run was killed. Every method
    raises MachineError if the machine refuses.
    """

    def __init__(self, workdir: Workdir, *, first_step: int):
        self._path = workdir.metrics
        _cut_after(workdir, first_step)
        with writing(self._path):
            self._file = self._path.open("a", encoding="utf-8")
            self._events = _Events(workdir.events, first_step)

    def write(self, values: dict[str, Any]) -> None:
        """Append the values of one step; `step` is among them. Numbers that are not finite become null."""
        line = {name: _finite(value) for name, value in values.items()}
        with writing(self._path):
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
            self._events.write(line)

    def sync(self) -> None:
        """Make everything that was written survive a crash of the machine."""
        with writing(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._events.flush()

    def close(self) -> None:
        """Flush and close both files."""
        with writing(self._path), self._file, contextlib.closing(self._events):
            pass


class _Events:
    """TensorBoard's file, written in step with the log.

    tensorboardX's own SummaryWriter writes from a thread behind a queue of ten: on a full disk the thread dies and the
    eleventh value waits for ever.
    """

    def __init__(self, path: Path, first_step: int):
        from tensorboardX.event_file_writer import EventsWriter

        # protobuf makes these classes when the module is imported.
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        self._writer = EventsWriter(str(path), EVENTS_END)
        if first_step:
            # Hides what an earlier process wrote past the step from which this one resumes.
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=time.time(), step=first_step + 1, session_log=start))

    def write(self, line: dict[str, Any]) -> None:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.summary import scalar

        for name, value in line.items():
            if isinstance(value, float):
                self._writer.write_event(Event(wall_time=time.time(), step=line["step"], summary=scalar(name, value)))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _cut_after(workdir: Workdir, step: int) -> None:
    kept = [json.dumps(line) + "\n" for line in workdir.read_metrics() if line["step"] <= step]
    with replacing(workdir.metrics) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
