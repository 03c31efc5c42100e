"""A run of Weights & Biases, on its server or in files below the workdir (`WANDB_MODE=offline`)."""

import os
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bloodcell_jax.config import Config
from bloodcell_jax.run.tracking.tracked_run import (
    PROJECT,
    name_of,
    numbers_of,
    read_tracked,
    settings_of,
    write_tracked,
)
from bloodcell_jax.workdir import Workdir

if TYPE_CHECKING:
    import wandb

# How long the end of a process waits for what the server has not taken yet; the files then still hold it.
_SECONDS_TO_FINISH = 60


def open_wandb(workdir: Workdir, config: Config, first_step: int) -> "WandbRun":
    """Open the run of an id that is drawn once. W&B's variables name server, project and mode.

    Raises what W&B raises if the server refuses or does not answer.
    """
    import wandb

    record = read_tracked(workdir, "wandb") or {"id": secrets.token_hex(4)}
    write_tracked(workdir, "wandb", record)
    run = wandb.init(
        id=record["id"],
        resume="allow",
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=os.environ.get("WANDB_NAME", name_of(workdir)),
        dir=str(workdir.path),
        config=settings_of(config),
        # What is printed is the command line's own, and its bar would be recorded as thousands of lines.
        settings=wandb.Settings(console="off", silent=True, finish_timeout=_SECONDS_TO_FINISH),
    )
    return WandbRun(run, workdir, record)


class WandbRun:
    """The run, and the last step that it has.

    A server says which that is. Files of earlier processes are not read, so what was given to them is written down.
    """

    def __init__(self, run: "wandb.Run", workdir: Workdir, record: dict):
        self._run, self._workdir, self._record = run, workdir, record
        # The server names the step after its last one; a new run begins at 0.
        self._last = record.get("step", -1) if run.offline else run.starting_step - 1

    def write(self, lines: Sequence[dict[str, Any]]) -> None:
        """Hand over the lines past the last step; W&B's own process sends them."""
        for line in lines:
            if line["step"] > self._last:
                self._run.log(numbers_of(line), step=line["step"], commit=True)
                self._last = line["step"]
        write_tracked(self._workdir, "wandb", self._record | {"step": self._last})

    def close(self, *, finished: bool) -> None:
        """Wait for what is not sent yet."""
        self._run.finish(exit_code=0 if finished else 1)
