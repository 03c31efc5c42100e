"""How large the table is: its network, its images, the length of its stages and its corrupted test."""

import logging
from dataclasses import dataclass, replace

from bloodcell_jax.config import Config, EvaluateConfig, recipes
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.robustness.suites import SUITES, Suite
from bloodcell_jax.table1.corrupted_test import ONE_CHAIN
from bloodcell_jax.table1.rows import Entry
from bloodcell_jax.table1.table_data import TableData
from bloodcell_jax.weights import read_weights_info

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """The size of a table.

    Attributes:
      variant: the ConvNeXt of all rows but the custom CNN's.
      published: name of its weights, unless the user names others.
      image_size: side of the images in pixels.
      suite: what corrupts the test images.
      dtype: precision of the computation.
      most_epochs: of a stage; None: as many as the row says.
      explain: cells that the report of each run explains.
      block: `augment.block`; the devices are at most 64 / block, and small blocks cost more on a CPU.
    """

    variant: str
    published: str
    image_size: int
    suite: Suite
    dtype: str
    most_epochs: float | None
    explain: int
    block: int = 32

    def config_of(self, entry: Entry, data: TableData, weights: str | None) -> Config:
        """Return the configuration of a run of the table.

        From random weights (None) a frozen backbone means nothing: such a row trains everything in one stage, which is
        as long as its own stages together.
        """
        config, row = entry.row.config(), entry.row
        config.data = replace(config.data, **data.reading(cleaned=entry.cleaned))
        wanted, smallest = config.data.samples_per_class, data.smallest_class(cleaned=entry.cleaned)
        if wanted is not None and wanted > smallest:
            config.data = replace(config.data, samples_per_class=smallest)
        config.model = replace(config.model, dtype=self.dtype)
        if row.pretrained:
            config.model = replace(config.model, variant=self.variant, weights=weights)
            if weights is None:
                # As in configs/pbc_scratch.py: the published layer scale, 1e-6, is for long trainings.
                config.model = replace(config.model, drop_path=0.1, layer_scale=0.1)
                config.stages = recipes.from_scratch(epochs=sum(stage.epochs or 0 for stage in config.stages))
        config.augment = replace(config.augment, block=self.block)
        if self.most_epochs is not None:
            most = self.most_epochs
            config.stages = [replace(stage, epochs=min(stage.epochs or most, most)) for stage in config.stages]
        config.evaluate = EvaluateConfig(explain=self.explain)
        return config


QUICK = Settings("convnext_atto", "convnext_atto.d2_in1k", 48, ONE_CHAIN, "float32", most_epochs=3.0, explain=0)
FULL = Settings(
    "convnext_base",
    "convnext_base.fb_in22k_ft_in1k",
    96,
    SUITES["chains"],
    "bfloat16",
    most_epochs=None,
    explain=20,
    block=8,
)


def find_start(settings: Settings, asked: str | None, *, random_if_none: bool) -> str | None:
    """Return the weights that the rows start from; None: random ones.

    Args:
      settings: names the published ones.
      asked: file or name that the user gave, `none` for random weights, or None for the published ones.
      random_if_none: if the published ones cannot be had, begin from random weights and say so.

    Raises:
      UsageError: they cannot be had, or are those of another network.
    """
    if asked == "none":
        return None
    wanted = settings.published if asked is None else asked
    try:
        info = read_weights_info(wanted, settings.variant)
    except DataError as error:
        if asked is not None or not random_if_none:
            raise UsageError(f"--weights: {error}; or give --weights=none to train from random weights") from error
        logger.warning("%s; all rows are trained from random weights: freezing is then not compared", error)
        return None
    if info.variant != settings.variant:
        raise UsageError(
            f"--weights={wanted}: holds {info.variant}, and the table trains {settings.variant}; name weights of that"
        )
    return wanted
