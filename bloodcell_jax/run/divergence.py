"""How a run diverges, and what it then leaves: the batch at which it went wrong, and how to go on."""

import jax
import numpy as np

from bloodcell_jax.errors import DivergedError, MachineError
from bloodcell_jax.run.journal import Journal
from bloodcell_jax.run.run import Run
from bloodcell_jax.run.watch.meter import Line
from bloodcell_jax.run.watch.skipped import SkippedSteps
from bloodcell_jax.train.step import Metrics
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.bad_batch import write_bad_batch
from bloodcell_jax.workdir.checkpoints import Checkpoints


class StepChecks:
    """Finds steps that were skipped, and ends a run that has diverged."""

    def __init__(self, run: Run, workdir: Workdir, checkpoints: Checkpoints, journal: Journal, skipped: int):
        self._run, self._workdir, self._checkpoints, self._journal = run, workdir, checkpoints, journal
        self._skipped = SkippedSteps(skipped)

    @property
    def skipped(self) -> int:
        """How many steps the run has skipped, up to the step that was looked at last."""
        return self._skipped.total

    def note(self, step: int, metrics: Metrics) -> None:
        """Keep what a step says of itself, on the devices."""
        self._skipped.note(step, metrics)

    def check_skipped(self, step: int, lines: list[Line]) -> None:
        """Log the steps up to `step` that were skipped, and check how many were so in a row.

        Raises:
          DivergedError: too many. They are looked at late, so the message names the first and the last that counts;
            of `lines` those up to that one are written.
        """
        most = self._run.config.train.max_bad_steps
        for skipped in self._skipped.look(step):
            self._journal.write_skipped(skipped, self._run.ids_of(skipped.step - 1))
            if skipped.in_a_row > most:
                self._journal.write([line for line in lines if line["step"] <= skipped.step], {})
                first = skipped.step - skipped.in_a_row + 1
                where = f"steps {first} to {skipped.step}" if most else f"step {first}"
                what = f"{where}: skipped, because {skipped.why}; more than max_bad_steps={most} in a row"
                raise self._diverged(what, first, past=skipped.reason != "parameters")

    def check_parameters(self, step: int, metrics: Metrics) -> None:
        """Refuse to save parameters that are not finite: no later step mends them.

        Raises:
          DivergedError: they are not.
        """
        norms = jax.device_get((metrics["norm/parameter"], metrics["norm/update"]))
        if not np.isfinite(norms).all():
            raise self._diverged(f"step {step}: the parameters are not finite", step, past=False)

    def _diverged(self, what: str, step: int, *, past: bool) -> DivergedError:
        self._checkpoints.wait()
        self._journal.sync()
        return diverged(self._run, self._workdir, self._checkpoints.folders.steps(), what, step, past=past)


def diverged(run: Run, workdir: Workdir, saved: list[int], what: str, step: int, *, past: bool) -> DivergedError:
    """Save the batch of the step at which a run went wrong; return the error that names what is left.

    Args:
      saved: steps of the checkpoints, ascending.
      what: happened.
      step: at which it began, counted from 1.
      past: other examples may be good, so that the run can go on past these.
    """
    batch = _save_batch(run, workdir, step)
    anew = "train anew with a lower learning_rate or with clip_norm, by --overwrite or in another --workdir"
    if not saved:
        return DivergedError(f"{what}{batch}; no checkpoint was saved before: {anew}")
    last = f"{workdir.checkpoints / str(saved[-1])} is the last checkpoint, of step {saved[-1]}, and finite"
    go_on = "to go on from it past these examples, run the same command with a larger --config.train.max_bad_steps"
    return DivergedError(f"{what}{batch}; {last}; {f'{go_on}; if the rate is at fault, ' if past else ''}{anew}")


def _save_batch(run: Run, workdir: Workdir, step: int) -> str:
    """Write the batch of a step, and return a part of a sentence that says so; empty if the disk refuses."""
    examples = run.examples_of(step - 1)
    if jax.process_index() == 0:
        try:
            write_bad_batch(
                workdir,
                step=step,
                images=run.dataset.images[examples],
                labels=run.dataset.labels[examples],
                ids=run.ids_of(step - 1),
                class_names=run.dataset.class_names,
            )
        except MachineError:
            return ""
    return f"; {workdir.bad_batch} holds the batch of step {step}"
