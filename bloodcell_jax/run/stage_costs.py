"""What the compiled steps of a run cost, and how long they take on the devices at hand."""

import time
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from bloodcell_jax.errors import MemoryFullError
from bloodcell_jax.run.compilation import compile_stage
from bloodcell_jax.run.inputs import RunInputs, StageInput
from bloodcell_jax.run.run import Run
from bloodcell_jax.run.step_memory import check_memory
from bloodcell_jax.train.stages import TrainingStage
from bloodcell_jax.train.state import TrainState

# Steps are timed for as long, and two at least: a quarter of an hour of training is then known to a few percent.
_SECONDS, _FEWEST, _MOST = 2.0, 2, 20


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage; None stands for what is not known.

    Attributes:
      stage: its name.
      steps, batch_size: as configured, the batch over all devices.
      image_size: side of the images that the network sees, in pixels.
      flops: of a step on one device, as XLA counts them.
      argument_bytes, temporary_bytes: of a step on one device.
      seconds_per_step: as measured, without reading images.
      notes: lines on what is computed before the stage, or why something is not known.
    """

    stage: str
    steps: int
    batch_size: int
    image_size: int
    flops: float | None
    argument_bytes: int | None
    temporary_bytes: int | None
    seconds_per_step: float | None
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """How long all its steps take."""
        return None if self.seconds_per_step is None else self.seconds_per_step * self.steps


def stage_costs(run: Run) -> list[StageCost]:
    """Compile the step of each stage, and run it some times on black images; no parameters are kept."""
    inputs, state, costs = RunInputs(run), run.initial_state(), []
    for stage in run.stages:
        stage_input = inputs.of_stage(stage)
        if stage.start:
            state = run.begin_stage(state, stage)
        step = compile_stage(run, stage, stage_input)
        cost, state = _cost(run, stage, stage_input, step, state)
        costs.append(cost)
    return costs


def _cost(
    run: Run, stage: TrainingStage, stage_input: StageInput, step: Any, state: TrainState
) -> tuple[StageCost, TrainState]:
    """Return the cost of a stage, and the state after the steps that were timed."""
    name, notes, seconds = stage.name, [], None
    flops = arguments = temporary = None
    if stage_input.note:
        notes.append(f"{name} runs the backbone once for each view and keeps {stage_input.note}")
    if hasattr(step, "cost_analysis"):
        analysis, memory = step.cost_analysis() or {}, step.memory_analysis()
        flops = analysis.get("flops")
        arguments, temporary = memory.argument_size_in_bytes, memory.temp_size_in_bytes
        try:
            check_memory(run, stage, step)
            seconds, state = _seconds_per_step(run, stage_input, step, state)
        except MemoryFullError as error:
            notes.append(str(error))
    else:  # see `DataParallel.compile_step`
        notes.append(f"{name} is compiled at its first step; --config.train.backend=jit would compile it now")
    facts = name, stage.stop - stage.start, run.config.train.batch_size, stage.image_size
    return StageCost(*facts, flops, arguments, temporary, seconds, tuple(notes)), state


def _seconds_per_step(run: Run, stage_input: StageInput, step: Any, state: TrainState) -> tuple[float, TrainState]:
    """Return how long a step takes after a first one, and the state after them all."""
    zeros = jax.tree.map(lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), stage_input.shapes())
    seed = run.place_seed()
    state, _ = jax.block_until_ready(step(state, *zeros, seed))
    count, start = 0, time.monotonic()
    while count < _FEWEST or (count < _MOST and time.monotonic() - start < _SECONDS):
        state, _ = jax.block_until_ready(step(state, *zeros, seed))
        count += 1
    return (time.monotonic() - start) / count, state
