"""A configuration whose run takes moments: the head of a small network, four steps."""

import pytest

from bloodcell_jax.config import (
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
)


@pytest.fixture(scope="session")
def small_config(cells):
    optimizer = OptimizerConfig(learning_rate=1e-2)
    return Config(
        seed=3,
        data=DataConfig(source=f"npz:{cells}", image_size=32, group_duplicates=False),
        model=ModelConfig(variant="test_convnext2", dtype="float32"),
        stages=[StageConfig(name="head", steps=4, trainable=("head/.*", "!.*"), optimizer=optimizer)],
        train=TrainConfig(batch_size=16, evaluate_every=2),
        evaluate=EvaluateConfig(batch_size=32, explain=0),
    )
