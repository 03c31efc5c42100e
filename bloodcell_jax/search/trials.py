"""The trials of a study: which one this process trains next, and which of them nobody trains any more."""

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from bloodcell_jax.errors import MachineError

if TYPE_CHECKING:
    import optuna

# Of a trial: the folder of the sweep that trains it, and why it failed.
_WORKDIR, REASON = "workdir", "reason"


class SharedStudy(NamedTuple):
    """A study, and where this process keeps its trials.

    Attributes:
      study: what all processes share.
      storage: its database.
      workdir: of the sweep, which may be shared by several processes.
      is_own: the study lies in the workdir, so all of its trials are trained there.
    """

    study: "optuna.Study"
    storage: "optuna.storages.BaseStorage"
    workdir: Path
    is_own: bool

    def folder_of(self, trial: "optuna.trial.FrozenTrial") -> Path | None:
        """Return the workdir of a trial; None: no sweep trains it."""
        of_sweep = trial.user_attrs.get(_WORKDIR)
        if of_sweep is None:
            return None
        # A sweep that lies in its workdir may have been moved.
        return folder_in(self.workdir.absolute() if self.is_own else Path(of_sweep), trial.number)


def folder_in(workdir: Path, number: int) -> Path:
    """Return the workdir of a trial of a sweep."""
    return workdir / "trials" / str(number)


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
    shared: SharedStudy, most: int, sampler_of: "Callable[[int], optuna.samplers.BaseSampler]"
) -> Iterator["optuna.trial.Trial | None"]:
    """Hold the trial that this process trains next; None if no trial is left to begin.

    A process holds a lock file of its trial as long as it lives. A trial that is running by the study, and whose lock
    is free, belonged to a process that was killed or stopped: it is resumed first.

    Args:
      shared: the study.
      most: number of trials of the study, of all processes together.
      sampler_of: returns the sampler of a trial from its number.
    """
    study, workdir = shared.study, shared.workdir
    with contextlib.ExitStack() as held:
        # One process at a time, so that nobody takes a trial between its creation and its lock for an abandoned one.
        with _held(workdir / "sweep.lock", wait=True):
            trial = _abandoned(shared, held)
            trials = study.get_trials(deepcopy=False)
            if trial is None and len(trials) < most:
                trial = study.ask()
                # By its own number: another host may have begun one meanwhile.
                study.sampler = sampler_of(trial.number)
                trial.set_user_attr(_WORKDIR, str(workdir.absolute()))
                held.enter_context(_held(lock_of(workdir, trial.number), wait=True))
        yield trial


def lock_of(workdir: Path, number: int) -> Path:
    """Return the lock file of a trial."""
    return workdir / "trials" / f"{number}.lock"


def _abandoned(shared: SharedStudy, held: contextlib.ExitStack) -> "optuna.trial.Trial | None":
    from optuna.trial import Trial, TrialState

    study, storage, workdir, is_own = shared
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        ours = frozen.user_attrs.get(_WORKDIR) == str(workdir.absolute())
        if (is_own or ours) and held.enter_context(_held(lock_of(workdir, frozen.number), wait=False)):
            study_id = storage.get_study_id_from_name(study.study_name)
            return Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, frozen.number))
    return None
