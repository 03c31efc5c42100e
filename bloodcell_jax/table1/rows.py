"""The rows of the table: the report's five, and ours.

The layers are those of KerasCV as the report ran them, faults included (`compat=kerascv`). The report gives neither its
batch size nor its rates, so these values are ours.
"""

import copy
from dataclasses import dataclass, field

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

_AUGMIX = "augmix:compat=kerascv"
_RANDAUGMENT = AugmentConfig(policy=f"{_AUGMIX}|randaugment:preset=kerascv")
_FOURIER = AugmentConfig(policy=_AUGMIX, mix="fmix:alpha=0.5,compat=kerascv")
_UNDER = DataConfig(sampler="under", samples_per_class=850)
_OVER = DataConfig(sampler="over")
# Large classes are shown less often than they are there, and small ones more often.
_HYBRID = DataConfig(sampler="balanced")


@dataclass(frozen=True)
class Row:
    """A method.

    Attributes:
      name: on the command line and of its folders.
      title: in the table.
      ours: it is not the report's.
      variant: of the network.
    """

    name: str
    title: str
    ours: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(policy="none"))
    stages: tuple[StageConfig, ...] = tuple(recipes.report())
    variant: str = "convnext_base"

    @property
    def pretrained(self) -> bool:
        """Whether it starts from ImageNet weights."""
        return self.variant != "custom_cnn"

    def config(self) -> Config:
        """Return its configuration; the caller names the data and the weights."""
        parts = Config(
            data=self.data,
            model=ModelConfig(variant=self.variant),
            augment=self.augment,
            stages=list(self.stages),
            train=TrainConfig(batch_size=64),
        )
        # Overrides of the command line change a configuration, and the rows share their parts.
        return copy.deepcopy(parts)


_CNN_STAGES = (StageConfig(epochs=20.0, optimizer=OptimizerConfig(name="adam", learning_rate=1e-3)),)
# The row that ours change: its classes are balanced without leaving out images, and its augmentation is the stronger.
BASE = "over-augmix-randaugment"
ROWS = {
    row.name: row
    for row in (
        Row("cnn", "Custom CNN, no augmentation", stages=_CNN_STAGES, variant="custom_cnn"),
        Row("under-augmix-randaugment", "Undersampling, AugMix, RandAugment", data=_UNDER, augment=_RANDAUGMENT),
        Row("under-augmix-fourier", "Undersampling, AugMix, FourierMix", data=_UNDER, augment=_FOURIER),
        Row(BASE, "Oversampling, AugMix, RandAugment", data=_OVER, augment=_RANDAUGMENT),
        Row("over-augmix-fourier", "Oversampling, AugMix, FourierMix", data=_OVER, augment=_FOURIER),
        Row(
            "full-unfreeze",
            "Oversampling, strong chain on each image, everything unfrozen",
            ours=True,
            data=_OVER,
            augment=AugmentConfig(policy=recipes.WINNER_POLICY),
            stages=tuple(recipes.winner()),
        ),
        Row("hybrid", "Hybrid sampling, AugMix, RandAugment", ours=True, data=_HYBRID, augment=_RANDAUGMENT),
    )
}


@dataclass(frozen=True)
class Entry:
    """A run of the table: a row on raw or on cleaned data."""

    row: Row
    cleaned: bool

    @property
    def name(self) -> str:
        """The name of its run."""
        return f"{self.row.name}-{'cleaned' if self.cleaned else 'raw'}"

    @property
    def ours(self) -> bool:
        """Whether the report has no such run: it did not clean its data."""
        return self.row.ours or self.cleaned


def entries(*, quick: bool) -> list[Entry]:
    """Return the runs of the table, in its order; quick: every row on raw data, and the base on cleaned data."""
    raw = [Entry(row, cleaned=False) for row in ROWS.values()]
    return raw + [Entry(row, cleaned=True) for row in ROWS.values() if not quick or row.name == BASE]
