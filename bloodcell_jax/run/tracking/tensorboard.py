"""TensorBoard's files in the workdir."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bloodcell_jax.config import Config
from bloodcell_jax.run.tracking.tracked_run import numbers_of
from bloodcell_jax.whole_files import writing
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.layout import EVENTS_END

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter


def open_tensorboard(workdir: Workdir, config: Config, first_step: int) -> "TensorBoardFile":
    """Return the file of a process that goes on from a step; it is created with its first line."""
    return TensorBoardFile(workdir.events, first_step)


class TensorBoardFile:
    """One file of TensorBoard's, written in step with `metrics.jsonl`.

    tensorboardX's own SummaryWriter writes from a thread behind a queue of ten: on a full disk the thread dies and the
    eleventh value waits for ever. Every method raises MachineError if the machine refuses.
    """

    def __init__(self, path: Path, first_step: int):
        self._path, self._first_step = path, first_step
        self._writer: EventsWriter | None = None

    def write(self, lines: Sequence[dict[str, Any]]) -> None:
        """Write the numbers of lines, which TensorBoard then sees at once."""
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.summary import scalar

        with writing(self._path):
            if self._writer is None:
                self._writer = self._create()
            for line in lines:
                for name, value in numbers_of(line).items():
                    summary = scalar(name, value)
                    self._writer.write_event(Event(wall_time=time.time(), step=line["step"], summary=summary))
            self._writer.flush()

    def close(self, *, finished: bool) -> None:
        """Close the file."""
        if self._writer is not None:
            with writing(self._path):
                self._writer.close()

    def _create(self) -> "EventsWriter":
        from tensorboardX.event_file_writer import EventsWriter

        # protobuf makes these classes when the module is imported.
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        writer = EventsWriter(str(self._path), EVENTS_END)
        if self._first_step:
            # Hides what an earlier process wrote past the step from which this one resumes.
            start = SessionLog(status=SessionLog.START)
            writer.write_event(Event(wall_time=time.time(), step=self._first_step + 1, session_log=start))
        return writer
