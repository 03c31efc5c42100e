"""Real cells from any source, ConvNeXt-Atto from random weights.

python launch.py train --config=configs/pbc_scratch.py --workdir=runs/pbc --config.data.source=zip:PATH
"""

from bloodcell_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, StageConfig, TrainConfig


def get_config(arg: str = "") -> Config:
    return Config(
        data=DataConfig(source="zip:../shared/data/pbc96.zip"),
        model=ModelConfig(variant="convnext_atto", dtype="float32", drop_path=0.1, layer_scale=0.1),
        stages=[
            StageConfig(
                epochs=10.0,
                optimizer=OptimizerConfig(
                    name="adamw", learning_rate=2e-3, warmup_epochs=1.0, weight_decay=0.05, clip_norm=1.0
                ),
            )
        ],
        train=TrainConfig(batch_size=64, label_smoothing=0.1),
    )
