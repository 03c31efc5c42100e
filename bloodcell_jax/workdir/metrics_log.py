"""Metrics on disk: `metrics.jsonl`, one object per logged step, and TensorBoard events beside it."""

import contextlib
import math
import time
from pathlib import Path
from typing import Any

from bloodcell_jax.whole_files import writing
from bloodcell_jax.workdir.json_lines import JsonLines
from bloodcell_jax.workdir.layout import EVENTS_END, Workdir
from bloodcell_jax.workdir.records import check_metrics_line


class MetricsLog:
    """Writes `metrics.jsonl`, see `JsonLines`, and TensorBoard events of one run."""

    def __init__(self, workdir: Workdir, *, first_step: int):
        self._path = workdir.metrics
        self._lines = JsonLines(workdir.metrics, check_metrics_line, first_step=first_step)
        with writing(self._path):
            self._events = _Events(workdir.events, first_step)

    def write(self, values: dict[str, Any]) -> None:
        """Append the values of one step; `step` is among them. Numbers that are not finite become null."""
        line = {name: _finite(value) for name, value in values.items()}
        self._lines.write(line)
        with writing(self._path):
            self._events.write(line)

    def sync(self) -> None:
        """Make everything that was written survive a crash of the machine."""
        self._lines.sync()
        with writing(self._path):
            self._events.flush()

    def close(self) -> None:
        """Flush and close both files."""
        with writing(self._path), contextlib.closing(self._lines), contextlib.closing(self._events):
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


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
