"""The dataset that a configuration names."""

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.cleaning import remove_rows
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.sources import read_source
from bloodcell_jax.errors import UsageError


def load_data(config: DataConfig) -> Dataset:
    """Read the source of a configuration without what its `clean` names; images may stay on the disk.

    Raises:
      UsageError: no source is given, or one of no known kind.
      DataError: as `load_source` and `remove_rows` say.
    """
    if config.source is None:
        raise UsageError("config.data.source: missing; give KIND:PLACE, such as --config.data.source=folder:cells")
    dataset = read_source(config.source, config)
    return dataset if config.clean is None else remove_rows(dataset, config.clean)
