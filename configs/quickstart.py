"""ConvNeXt-Atto from random weights on synthetic cells: about 2 minutes on 2 x86-64 cores.

bloodcell train --config=quickstart --workdir=runs/demo

The test accuracy was 0.909 on 296 cells with seed 0 (95 % interval: about 3 points up and down). `make demo`, which
also makes the environment, took 1 min 52 s on 2 x86-64 cores and reached 370 images/s (jax 0.10.2, one trial).
"""

from bloodcell_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
)


def get_config(arg: str = "") -> Config:
    """Return the configuration; `arg` is not used."""
    return Config(
        data=DataConfig(source="synthetic:2000", image_size=64),
        model=ModelConfig(variant="convnext_atto", dtype="float32", layer_scale=0.1),
        augment=AugmentConfig(policy="d4|brightness:delta=0.1|contrast:delta=0.1"),
        stages=[
            StageConfig(
                epochs=14.0,
                optimizer=OptimizerConfig(
                    name="adamw", learning_rate=2e-3, warmup_epochs=1.0, weight_decay=0.05, clip_norm=1.0
                ),
            )
        ],
        train=TrainConfig(batch_size=32, label_smoothing=0.1),
    )
