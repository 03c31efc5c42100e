"""The compiled step of a stage, made from shapes alone: no example is read and no feature computed for it."""

from typing import Any

import jax
import numpy as np

from bloodcell_jax.run.inputs import StageInput
from bloodcell_jax.run.run import Run
from bloodcell_jax.train.stages import TrainingStage


def compile_stage(run: Run, stage: TrainingStage, stage_input: StageInput) -> Any:
    """Return the compiled `(state, data, batch, seed) -> (state, metrics)` of a stage; the state is donated."""
    data, batch = stage_input.shapes()
    seed = run.parallel.state_shapes(jax.ShapeDtypeStruct((), np.uint32))
    step = run.train_step(stage, stage_input.step_input)
    return run.parallel.compile_step(step, run.state_shapes(stage), data, batch, seed)
