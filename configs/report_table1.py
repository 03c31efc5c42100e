"""The five rows of the results table of the report: its data balance and its augmentation layers with their faults.

bloodcell train --config=report_table1:ROW --workdir=runs/ROW --config.data.source=npz:training_set.npz \\
    --config.model.weights=convnext_base.safetensors

ROW is one of
  cnn                       the custom CNN on the unchanged data
  under-augmix-randaugment  ConvNeXt-Base, 850 of each class, AugMix then RandAugment
  under-augmix-fourier      ConvNeXt-Base, 850 of each class, AugMix and FourierMix
  over-augmix-randaugment   ConvNeXt-Base, every class repeated to the size of the largest, AugMix then RandAugment
  over-augmix-fourier       ConvNeXt-Base, every class repeated to the size of the largest, AugMix and FourierMix

In the report, ConvNeXt-Base was frozen while the head was trained, and mostly frozen afterwards. Here, its last stage
is fine-tuned afterwards. The report does not give the batch and the rates, so these values are ours. Without `weights`,
the backbone is random and the rows mean nothing. One step of 64 images of 96 px costs 1.0 TFLOP with the whole backward
pass, and a third of it with a frozen backbone. The accuracies have not been measured yet, because no ImageNet weights
were available.
"""

from bloodcell_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
    recipes,
)
from bloodcell_jax.errors import UsageError

# The layers of KerasCV as the report ran them: its operations and ranges, and compat=kerascv for layers with faults.
AUGMIX = "augmix:compat=kerascv"
AUGMENTS = {
    "randaugment": AugmentConfig(policy=f"{AUGMIX}|randaugment:preset=kerascv"),
    "fourier": AugmentConfig(policy=AUGMIX, mix="fmix:alpha=0.5,compat=kerascv"),
}
BALANCES = {
    "under": DataConfig(sampler="under", samples_per_class=850),
    "over": DataConfig(sampler="over"),
}
ROWS = ("cnn", *(f"{balance}-augmix-{augment}" for balance in BALANCES for augment in AUGMENTS))


def get_config(arg: str = "") -> Config:
    """Return the configuration of the row `arg`.

    Raises:
      UsageError: there is no such row.
    """
    if arg not in ROWS:
        raise UsageError(f"--config=report_table1:{arg}: no such row; choose one of {', '.join(ROWS)}")
    if arg == "cnn":
        return _custom_cnn()
    balance, _, augment = arg.split("-")
    return _convnext(BALANCES[balance], AUGMENTS[augment])


def _custom_cnn() -> Config:
    return Config(
        model=ModelConfig(variant="custom_cnn"),
        augment=AugmentConfig(policy="none"),
        stages=[StageConfig(epochs=20.0, optimizer=OptimizerConfig(name="adam", learning_rate=1e-3))],
        train=TrainConfig(batch_size=64),
    )


def _convnext(data: DataConfig, augment: AugmentConfig) -> Config:
    return Config(
        data=data,
        model=ModelConfig(variant="convnext_base"),
        augment=augment,
        stages=recipes.report(),
        train=TrainConfig(batch_size=64),
    )
