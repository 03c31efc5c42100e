"""Which checkpoint of a run is meant, and the calibration that goes with it."""

import logging

from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.weights.calibration import Calibration
from bloodcell_jax.weights.model_file import read_model_record
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.checkpoint_folders import CheckpointFolders, Ranking

logger = logging.getLogger(__name__)


def choose_step(folders: CheckpointFolders, wanted: str | int, ranking: Ranking) -> int:
    """Return the step that `--checkpoint` means: best, last or a step, among those that are whole.

    Raises:
      UsageError: there is no such checkpoint; the ones there are named.
      DataError: there is none at all, or none that is whole.
    """
    steps = folders.steps()
    if not steps:
        raise DataError(f"{folders.directory}: holds no finished checkpoint; train first, or wait for the first one")
    newest_first, wanted = steps[::-1], str(wanted)
    if wanted == "last":
        candidates = newest_first
    elif wanted == "best":
        candidates = folders.best(ranking) or newest_first
    elif wanted.isdecimal() and int(wanted) in steps:
        candidates = [int(wanted)]
    else:
        raise UsageError(f"--checkpoint={wanted}: there are best, last, {', '.join(map(str, steps))}")
    if (step := next(folders.usable(candidates), None)) is None:
        raise DataError(
            f"{folders.directory}: no checkpoint that --checkpoint={wanted} may mean is whole "
            f"({', '.join(map(str, candidates))}); take another one, or a copy"
        )
    return step


def calibration_of(run: Workdir, step: int) -> Calibration | None:
    """Return what val said of a checkpoint, which only the file of the best one keeps; a warning if nothing did."""
    if not run.model.exists():
        say_uncalibrated(run, f"{run.model.name} keeps the calibration, and the run writes it at its end")
        return None
    record = read_model_record(run.model)
    if record.step != step:
        say_uncalibrated(f"{run}, step {step}", f"{run.model.name} is of step {record.step}, and so is its calibration")
        return None
    if record.calibration is None:
        say_uncalibrated(run.model, "the run's command, given again, asks val")
    return record.calibration


def say_uncalibrated(what: object, why: str) -> None:
    """Log that a model is not calibrated, and what that means."""
    logger.warning(
        "%s: not calibrated (%s); probabilities are the network's own (temperature 1), and no image is called unknown",
        what,
        why,
    )
