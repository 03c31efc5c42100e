"""A state that is cut over the devices: the same run as a copied one, with less memory, and resumable into and out."""

import contextlib
import re

import jax
import numpy as np
import pytest

from bloodcell_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
)
from bloodcell_jax.errors import UsageError
from bloodcell_jax.run.compilation import compile_stage
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.inputs import RunInputs
from bloodcell_jax.run.job import train_and_evaluate
from bloodcell_jax.run.state_sharding import state_shardings
from bloodcell_jax.train.packing import Joining
from bloodcell_jax.train.state import TrainState, begin_stage, create_state
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.checkpoints import Checkpoints

ADAMW = OptimizerConfig(name="adamw", learning_rate=1e-3, schedule="constant", weight_decay=0.05, clip_norm=1.0)


def config_of(choice, backend="jit"):
    return Config(
        data=DataConfig(source="synthetic:160", image_size=32),
        model=ModelConfig(variant="test_convnext3", dtype="float32", layer_scale=0.1),
        augment=AugmentConfig(policy="d4"),
        stages=[StageConfig(steps=5, optimizer=ADAMW)],
        train=TrainConfig(batch_size=16, backend=backend, shard_state=choice, ema_decay=0.9),
    )


@pytest.fixture(scope="module")
def runs(run_steps):
    """The first five steps on eight devices, by choice: run, metrics, state."""
    made = {}
    for choice in ("none", "optimizer", "all"):
        run = create_run(config_of(choice))
        made[choice] = (run, *run_steps(run, 5))
    return made


@pytest.mark.parametrize("choice", ["optimizer", "all"])
def test_five_steps_are_those_of_a_copied_state(runs, choice):
    (_, expected_metrics, expected), (_, metrics, state) = runs["none"], runs[choice]
    for part in ("params", "ema"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6),
            getattr(state, part),
            getattr(expected, part),
        )
    for ours, theirs in zip(metrics, expected_metrics, strict=True):
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_device_holds_an_eighth_of_what_is_cut(runs):
    held = {}
    for choice, (run, *_) in runs.items():
        shapes = run.state_shapes(run.stages[0])

        def bytes_on_one_device(tree):
            return sum(np.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))

        held[choice] = [bytes_on_one_device(part) for part in (shapes.opt_state, shapes.packed_ema, shapes.packed)]
    optimizer, _, params = held["none"]
    assert optimizer > 2 * params * 0.99
    # A few small leaves have no axis that eight devices divide.
    for choice, cut in (("optimizer", (True, True, False)), ("all", (True, True, True))):
        for count, whole, is_cut in zip(held[choice], held["none"], cut, strict=True):
            assert count < whole / 7 if is_cut else count == whole, choice


def test_what_is_cut_is_gathered(runs):
    """A step whose state is copied gathers nothing (`test_a_step_is_one_all_reduce_and_no_other_collective`)."""
    run = runs["optimizer"][0]
    program = compile_stage(run, run.stages[0], RunInputs(run).of_stage(run.stages[0])).as_text()
    assert re.search(r" all-gather(-start)?\(", program)


def test_pmap_cannot_cut_the_state():
    with pytest.raises(UsageError, match=r"shard_state=optimizer.*backend=pmap"):
        create_run(config_of("optimizer", "pmap"))


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_packed_arrays_are_cut_too(runs, platform):
    run = runs["all"][0]
    stage = run.stages[0]
    state = jax.eval_shape(
        lambda params: begin_stage(
            create_state(params, run.guard, with_ema=True), stage.optimizer, stage.mask, Joining(platform)
        ),
        run.param_shapes,
    )
    shardings = state_shardings(state, run.parallel, "all")
    joined = [name for name in state.packed.trainable if name.startswith("float32/")]
    assert joined
    for tree in (shardings.packed.trainable, shardings.packed_ema.trainable, shardings.opt_state[1].nu):
        assert all(not tree[name].is_fully_replicated for name in joined)


@pytest.mark.parametrize(
    ("saved", "restored"),
    [
        ("optimizer", "all"),
        *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in (("all", "none"), ("none", "optimizer"))),
    ],
)
def test_a_checkpoint_of_one_choice_is_restored_under_another(saved, restored, runs, tmp_path):
    (run, *_), (other, *_) = runs[saved], runs[restored]
    stage, state = other.stages[0], run.initial_state()
    with contextlib.closing(Checkpoints(tmp_path / "checkpoints")) as checkpoints:
        checkpoints.save(1, state.to_trees(), {"metrics": {}})
        checkpoints.wait()
        trees = checkpoints.restore(1, other.tree_shapes(stage))
    found = TrainState.from_trees(trees, state.guard.skipped_steps, stage.mask, Joining(other.parallel.platform))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(state))
    for array, sharding in zip(
        jax.tree.leaves((found.opt_state, found.packed)),
        jax.tree.leaves((other.state_shardings(stage).opt_state, other.state_shardings(stage).packed)),
        strict=True,
    ):
        assert array.sharding.is_equivalent_to(sharding, array.ndim)


@pytest.mark.exhaustive
def test_a_run_goes_on_with_another_choice(tmp_path):
    """Copied, then cut, then copied again: the log is that of the run that was never stopped."""
    workdirs = {}
    for name, choices in (("switched", ("none", "all", "none")), ("whole", ("none",))):
        workdirs[name] = Workdir(tmp_path / name)
        for number, choice in enumerate(choices):
            config = config_of(choice)
            config.stages[0].steps = 6 if name == "whole" else 2 * (number + 1)
            config.train.log_every = 1
            train_and_evaluate(config, workdirs[name].path)
    switched, whole = (workdirs[name].read_metrics() for name in ("switched", "whole"))
    assert [line["step"] for line in switched] == [line["step"] for line in whole] == list(range(1, 7))
    for ours, theirs in zip(switched, whole, strict=True):
        for key in ("train/loss", "norm/parameter"):
            np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-5)
