"""The trials of a study: which one this process trains next, and which of them nobody trains any more."""

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from bloodcell_jax.errors import MachineError

if TYPE_CHECKING:
    import optuna

# Of a trial: the folder of the sweep that trains it, and why it failed.
WORKDIR, REASON = "workdir", "reason"


@contextlib.contextmanager
def _held(path: Path, *, wait: bool) -> Iterator[IO[str] | None]:
    """Hold a lock, which ends with the process at the latest; None if another process has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise MachineError(f"{path}: cannot be written ({error.strerror}); choose another --workdir") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
        else:
            yield file


@contextlib.contextmanager
def next_trial(
    study: "optuna.Study",
    workdir: Path,
    most: int,
    sampler_of: "Callable[[int], optuna.samplers.BaseSampler]",
    *,
    own_storage: bool,
) -> Iterator["optuna.trial.Trial | None"]:
    """Hold the trial that this process trains next; None if no trial is left to begin.

    A process holds a lock file of its trial as long as it lives. A trial that is running by the study, and whose lock
    is free, belonged to a process that was killed or stopped: it is resumed first.

    Args:
      study: the study.
      workdir: of the sweep, which may be shared by several processes.
      most: number of trials of the study, of all processes together.
      sampler_of: returns the sampler of a trial from its number.
      own_storage: the study lies in the workdir, so all of its trials are trained here.
    """
    with contextlib.ExitStack() as held:
        # One process at a time, so that nobody takes a trial between its creation and its lock for an abandoned one.
        with _held(workdir / "sweep.lock", wait=True):
            trial = _abandoned(study, workdir, held, own_storage=own_storage)
            trials = study.get_trials(deepcopy=False)
            if trial is None and len(trials) < most:
                trial = study.ask()
                # By its own number: another host may have begun one meanwhile.
                study.sampler = sampler_of(trial.number)
                trial.set_user_attr(WORKDIR, str(workdir.absolute()))
                held.enter_context(_held(lock_of(workdir, trial.number), wait=True))
        yield trial


def lock_of(workdir: Path, number: int) -> Path:
    """Return the lock file of a trial."""
    return workdir / "trials" / f"{number}.lock"


def _abandoned(
    study: "optuna.Study", workdir: Path, held: contextlib.ExitStack, *, own_storage: bool
) -> "optuna.trial.Trial | None":
    from optuna.trial import Trial, TrialState

    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        ours = frozen.user_attrs.get(WORKDIR) == str(workdir.absolute())
        if (own_storage or ours) and held.enter_context(_held(lock_of(workdir, frozen.number), wait=False)):
            return Trial(study, frozen._trial_id)
    return None
