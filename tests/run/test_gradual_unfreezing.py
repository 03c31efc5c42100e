"""A run that sets its network free from the head down: what is frozen stays."""

import contextlib
import functools
from dataclasses import replace

import jax
import numpy as np
import pytest

from bloodcell_jax.config import AugmentConfig, Config, DataConfig, EvaluateConfig, ModelConfig, TrainConfig, recipes
from bloodcell_jax.models.network import leaves_by_path
from bloodcell_jax.models.registry import MODELS, create_convnext
from bloodcell_jax.models.variants import Variant
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.job import train_and_evaluate
from bloodcell_jax.workdir.checkpoints import Checkpoints

# Two blocks and small kernels: what is compiled grows with the number of parameters and the side of a kernel.
SHORT = Variant((1, 0, 0, 1), (8, 8, 16, 16), layer_scale=0.5, kernel_sizes=(3, 3, 3, 3))
STEPS = 2


@pytest.fixture(scope="module")
def trained(cells, tmp_path_factory):
    """A run of three stages: its plan, and parameters and average after each stage."""
    stages = recipes.gradual_unfreezing(learning_rate=0.02, layers=("stage_3.*", ".*"))
    config = Config(
        data=DataConfig(source=f"npz:{cells}", image_size=32, class_names=("red", "green", "blue")),
        model=ModelConfig(variant="short", dtype="float32"),
        augment=AugmentConfig(policy="none"),
        stages=[replace(stage, steps=STEPS) for stage in stages],
        train=TrainConfig(batch_size=16, ema_decay=0.5, log_every=1, evaluate_every=100, keep_last=9),
        evaluate=EvaluateConfig(batch_size=32, explain=0),
    )
    workdir = tmp_path_factory.mktemp("gradual") / "run"
    create = functools.partial(create_convnext, SHORT)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(MODELS, "short", replace(MODELS["test_convnext2"], create=create))
        train_and_evaluate(config, workdir)
        run = create_run(config)
        trees = [{"params": jax.device_get(run.initial_state().params)}]
        with contextlib.closing(Checkpoints(workdir / "checkpoints", read_only=True)) as checkpoints:
            for number, stage in enumerate(run.stages):
                following = run.stages[min(number + 1, 2)]
                like = {name: run.tree_shapes(following)[name] for name in ("params", "ema")}
                trees.append(checkpoints.restore(stage.stop, like))
    return run, trees


@pytest.mark.exhaustive
def test_what_is_frozen_stays_to_the_bit_with_weight_decay_and_average(trained):
    run, trees = trained
    assert all(stage.config.optimizer.weight_decay for stage in run.stages)
    averages = trees[0]["params"]
    for stage, before, after in zip(run.stages, trees, trees[1:], strict=False):
        learns = leaves_by_path(stage.mask)
        for name, start in (("params", before["params"]), ("ema", averages)):
            old, new = leaves_by_path(start), leaves_by_path(after[name])
            for path, value in old.items():
                moved = not np.array_equal(np.asarray(value), np.asarray(new[path]))
                assert moved == learns[path], (stage.config.name, name, path)
        averages = after["ema"]
    assert [sum(leaves_by_path(stage.mask).values()) for stage in run.stages] == [4, 17, len(learns)]
