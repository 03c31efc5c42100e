"""The range test of a stage: its own step on its own examples, at a learning rate that rises from step to step."""

import dataclasses
import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from bloodcell_jax.config import Config
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.report.find_lr_page import write_find_lr_page
from bloodcell_jax.run.compilation import compile_stage
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.inputs import RunInputs
from bloodcell_jax.run.run import Run
from bloodcell_jax.run.step_memory import check_memory
from bloodcell_jax.run.watch.progress import show_pass
from bloodcell_jax.train.optimizers import create_optimizer
from bloodcell_jax.train.range_test import LEAST_FALL, has_diverged, read_off, rising_rates, smoothed
from bloodcell_jax.train.stages import TrainingStage
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import write_json
from bloodcell_jax.workdir.own_files import check_own


@dataclass(frozen=True)
class Range:
    """The learning rates of a range test: from `lowest` to `highest`, one for each of `steps` steps."""

    lowest: float = 1e-7
    highest: float = 10.0
    steps: int = 100

    def __post_init__(self):
        if not 0 < self.lowest < self.highest < math.inf:
            raise UsageError(
                f"--lowest={self.lowest:g}, --highest={self.highest:g}: give two rates above 0, the lower one first"
            )


def find_learning_rate(
    config: Config, workdir: Workdir, *, stage: str | None = None, rates: Range | None = None
) -> dict[str, Any]:
    """Run the test of a stage, and write `find_lr.json` and `find_lr.html` into the workdir.

    No checkpoint is written, and a run in the workdir is left as it is.

    Args:
      config: of the run that is to be trained.
      workdir: where the results go.
      stage: name or number of one of `config.stages`, from 0; None: the first one.
      rates: those to try.

    Returns:
      The content of `find_lr.json`.

    Raises:
      UsageError: there is no such stage, or as `create_run` says.
      DataError: the first losses are not finite already, or as `create_run` says.
      MachineError: the devices' memory is too small, or the workdir cannot be written to.
    """
    rates = rates or Range()
    workdir.check_usable()
    check_own(workdir)
    number = stage_number(config, stage)
    run = create_run(config)
    with workdir.locked():
        losses = _losses(run, number, rates)
        results = _results(run, number, rates, losses)
        write_json(workdir.find_lr, results)
        write_find_lr_page(workdir.find_lr_page, results)
    return results


def stage_number(config: Config, stage: str | None) -> int:
    """Return the number of a stage that is named by its name, or by its number itself.

    Raises:
      UsageError: there is no such stage, or several have the name.
    """
    names = [each.name for each in config.stages]
    if stage is None:
        return 0
    if names.count(stage) == 1:
        return names.index(stage)
    if stage not in names and stage.isdecimal() and int(stage) < len(names):
        return int(stage)
    what = "several stages have this name; give its number" if stage in names else "no such stage"
    listed = ", ".join(f"{number} ({name})" for number, name in enumerate(names))
    raise UsageError(f"--stage={stage}: {what}; there are {listed}")


def tested_stage(run: Run, number: int, rates: Range) -> TrainingStage:
    """Return a stage as the test runs it: for as many steps as there are rates, at these rates."""
    stage, schedule = run.stages[number], rising_rates(rates.lowest, rates.highest, rates.steps)
    # Its schedule shapes the rates, and so does what lowers them at a plateau.
    config = replace(stage.config.optimizer, schedule="constant")
    return replace(
        stage,
        stop=stage.start + rates.steps,
        schedule=schedule,
        optimizer=create_optimizer(config, schedule, stage.distances),
    )


def _losses(run: Run, number: int, rates: Range) -> list[float]:
    """Return the losses of the steps until the end of the test; the last one alone may not be finite."""
    # A spike is what the test waits for.
    run = replace(run, config=replace(run.config, train=replace(run.config.train, spike_sigma=None)))
    stage = tested_stage(run, number, rates)
    stage_input = RunInputs(run).of_stage(stage)
    state = run.begin_stage(run.initial_state(), stage)
    data, seed, losses = stage_input.place_data(state.params), run.place_seed(), []
    step = compile_stage(run, stage, stage_input)
    check_memory(run, stage, step)
    batch_size = run.config.train.batch_size
    with stage_input.open_batches(stage.start) as batches, show_pass("range test") as show:
        for batch in batches:
            with jax.transfer_guard("disallow"):
                state, metrics = step(state, data, batch, seed)
            loss, bad_steps = jax.device_get((metrics["train/loss"], metrics["bad_steps"]))
            # A gradient that is not finite is the end as well.
            losses.append(float("nan") if bad_steps else loss.item())
            show(batch_size * len(losses), batch_size * rates.steps)
            if has_diverged(losses):
                break
    return losses


def _results(run: Run, number: int, rates: Range, losses: list[float]) -> dict[str, Any]:
    schedule = rising_rates(rates.lowest, rates.highest, rates.steps)
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not finite:
        raise DataError(f"the first loss of stage {number} is not finite; look at the images and the weights")
    tried = [np.asarray(schedule(step)).item() for step in range(len(finite))]
    found = read_off(tried, finite, rates.steps)
    return {
        "stage": {"number": number, "name": run.stages[number].name},
        "suggestion": None if found is None else found.steepest,
        "rule": "where the smoothed loss falls most steeply over the logarithm of the rate",
        "valley": None if found is None else found.valley,
        "before_lowest": None if found is None else found.before_lowest,
        "least_fall": LEAST_FALL,
        "diverged": has_diverged(losses),
        "steps": rates.steps,
        "rates": tried,
        "losses": finite,
        "smoothed": smoothed(finite).tolist(),
        "batch_size": run.config.train.batch_size,
        "seed": run.config.seed,
        "variant": run.config.model.variant,
        "weights": run.config.model.weights,
        "optimizer": dataclasses.asdict(run.stages[number].config.optimizer),
    }
