"""A run that diverges ends with exit code 4, and leaves no checkpoint that holds what it came to."""

import re

import numpy as np
import pytest

import bloodcell_jax as bc
from bloodcell_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, StageConfig, TrainConfig
from bloodcell_jax.errors import DivergedError


def diverging(cells, *stages):
    return Config(
        data=DataConfig(source=f"npz:{cells}", image_size=32),
        model=ModelConfig(variant="test_convnext2", dtype="float32"),
        stages=[
            StageConfig(name=str(i), steps=4, optimizer=OptimizerConfig(name="sgd", learning_rate=rate))
            for i, rate in enumerate(stages)
        ],
        train=TrainConfig(batch_size=16, evaluate_every=2),
    )


def test_the_checkpoint_before_is_named_and_can_be_used(cells, tmp_path):
    workdir = tmp_path / "run"
    with pytest.raises(DivergedError) as error:
        bc.train_and_evaluate(diverging(cells, 1e-3, 1e30), workdir)
    assert re.match(r"step 6: .* step 4\b", str(error.value))
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "4"]
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    assert np.isfinite(bc.Classifier.from_workdir(workdir, checkpoint="last").predict(images)).all()
