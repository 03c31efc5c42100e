"""What a run that diverged leaves: the batch at which it went wrong, and how to go on."""

import jax

from bloodcell_jax.errors import DivergedError, MachineError
from bloodcell_jax.run.run import Run
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.bad_batch import write_bad_batch


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
