"""ConvNeXt-Base from ImageNet weights with Lion: first the head is trained, then the whole network.

bloodcell train --config=convnext_base --workdir=runs/base --config.data.source=zip:cells.zip \\
    --config.model.weights=convnext_base.safetensors

The head is new, so its first gradients are large. The first stage therefore fits the head alone and freezes the
backbone; its steps have no backward pass through the backbone. The second stage fine-tunes the whole network at a rate
that preserves the ImageNet features. The recipe is made for an accelerator: one step of 64 images costs 1.0 TFLOP. Its
accuracy has not been measured yet.

'--config.stages[0].cached_views=1' keeps the features of the backbone while the head is fitted. The stage then does a
third of the work (docs/performance.md, "The head-only stage").
"""

from bloodcell_jax.config import Config, ModelConfig, OptimizerConfig, StageConfig, TrainConfig


def get_config(arg: str = "") -> Config:
    """Return the configuration; `arg` is not used."""
    return Config(
        model=ModelConfig(variant="convnext_base", drop_path=0.2, head_init_scale=0.001),
        stages=[
            StageConfig(
                name="head",
                epochs=3.0,
                trainable=("head/.*", "head_norm/.*", "!.*"),
                optimizer=OptimizerConfig(name="lion", learning_rate=1e-4, warmup_epochs=0.5, weight_decay=0.1),
            ),
            StageConfig(
                name="fine-tune",
                epochs=20.0,
                # Lion needs a rate 3 to 10 times lower than AdamW, and a decay as much higher (arXiv:2302.06675, 5).
                optimizer=OptimizerConfig(
                    name="lion", learning_rate=2e-5, warmup_epochs=1.0, weight_decay=0.5, clip_norm=1.0
                ),
            ),
        ],
        train=TrainConfig(batch_size=64, label_smoothing=0.1, ema_decay=0.999),
    )
