"""A step that does not fit is refused before it runs, with a batch that fits."""

import re
import runpy

import pytest

from bloodcell_jax.config import ModelConfig
from bloodcell_jax.errors import MachineError
from bloodcell_jax.run import step_memory
from bloodcell_jax.run.compilation import compile_stage
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.inputs import RunInputs


@pytest.fixture(scope="module")
def compiled(config_file):
    """Return a run, a stage and its compiled step, with little to compile and 32 images on each device."""
    config = runpy.run_path(str(config_file))["get_config"]()
    config.model, config.train.batch_size = ModelConfig(variant="custom_cnn", dtype="float32"), 256
    config.augment.policy = "none"
    run = create_run(config)
    return run, run.stages[1], compile_stage(run, run.stages[1], RunInputs(run).of_stage(run.stages[1]))


@pytest.mark.exhaustive
def test_the_batch_that_is_named_fits_and_the_next_one_does_not(compiled, monkeypatch):
    run, stage, step = compiled
    step_memory.check_memory(run, stage, step)
    whole = step_memory._bytes_of(step)
    monkeypatch.setattr(step_memory, "_free_bytes", lambda: int(0.7 * whole))
    with pytest.raises(MachineError, match=r"batch of 256 needs .* GB on each device.*batch_size=\d+ fits") as raised:
        step_memory.check_memory(run, stage, step)
    named = int(re.search(r"batch_size=(\d+) fits", str(raised.value))[1])
    assert named % 8 == 0
    for batch_size, fits in ((named, True), (named + 16, False)):
        other = run.with_batch_size(batch_size)
        step = compile_stage(other, stage, RunInputs(other).of_stage(stage))
        assert (step_memory._bytes_of(step) <= 0.7 * whole) == fits, batch_size


@pytest.mark.exhaustive
def test_that_no_batch_fits_is_said(compiled, monkeypatch):
    run, stage, step = compiled
    monkeypatch.setattr(step_memory, "_free_bytes", lambda: 1000)
    with pytest.raises(MachineError, match="no batch fits"):
        step_memory.check_memory(run, stage, step)
