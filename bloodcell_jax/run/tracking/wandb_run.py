"""A run of Weights & Biases, on its server or in files below the workdir (`WANDB_MODE=offline`)."""

import logging
import os
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bloodcell_jax.config import Config
from bloodcell_jax.run.tracking.tracked_run import (
    PROJECT,
    name_of,
    numbers_of,
    read_tracked_id,
    settings_of,
    write_tracked_id,
)
from bloodcell_jax.run.tracking.wandb_files import logged_lines
from bloodcell_jax.workdir import Workdir

if TYPE_CHECKING:
    import wandb  # pyright: ignore[reportMissingImports] - an extra

logger = logging.getLogger(__name__)

# How long the end of a process waits for what the server has not taken yet, and its start for a server that does not
# answer (90 s by default).
_SECONDS_TO_FINISH, _SECONDS_TO_START = 60, 20


def open_wandb(workdir: Workdir, config: Config, first_step: int) -> "WandbRun":
    """Open the run of an id that is drawn once. W&B's variables name server, project and mode.

    Raises what W&B raises if the server refuses or does not answer.
    """
    os.environ.setdefault("WANDB_SILENT", "true")  # Of its login, before there are settings.
    import wandb  # pyright: ignore[reportMissingImports] - an extra

    run_id = read_tracked_id(workdir, "wandb") or secrets.token_hex(4)
    write_tracked_id(workdir, "wandb", run_id)
    in_files = max([-1, *(line["_step"] for line in logged_lines(workdir.path / "wandb", run_id))])
    run = wandb.init(
        id=run_id,
        resume="allow",
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=os.environ.get("WANDB_NAME", name_of(workdir)),
        dir=str(workdir.path),
        config=settings_of(config),
        # What is printed is the command line's own, and its bar would be recorded as thousands of lines.
        settings=wandb.Settings(
            console="off", silent=True, init_timeout=_SECONDS_TO_START, finish_timeout=_SECONDS_TO_FINISH
        ),
    )
    if not run.offline and run.url:
        logger.info("--log_to=wandb: %s", run.url)
    # A server names the step after its last one, 0 of a new run.
    return WandbRun(run, in_files if run.offline else run.starting_step - 1)


class WandbRun:
    """The run, and the last step that it has."""

    def __init__(self, run: "wandb.Run", last_step: int):
        self._run, self._last_step = run, last_step

    def write(self, lines: Sequence[dict[str, Any]]) -> None:
        """Hand over the lines past the last step; W&B's own process sends or writes them."""
        for line in lines:
            if line["step"] > self._last_step:
                self._run.log(numbers_of(line), step=line["step"], commit=True)
                self._last_step = line["step"]

    def close(self, *, finished: bool) -> None:
        """Wait for what is not sent yet."""
        self._run.finish(exit_code=0 if finished else 1)
