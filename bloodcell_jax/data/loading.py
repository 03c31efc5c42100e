"""The dataset that a configuration names."""

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.cleaning import remove_rows
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.errors import UsageError


def load_data(config: DataConfig) -> Dataset:
    """Read the source of a configuration without what its `clean` names; images may stay on the disk.

    Raises:
      UsageError: no source is given, or one of no known kind.
      DataError: as `load_source` and `remove_rows` say.
    """
    if config.source is None:
        raise UsageError("config.data.source: missing; give KIND:PLACE, such as --config.data.source=folder:cells")
    dataset = load_source(
        config.source,
        image_size=config.image_size,
        crop=config.crop,
        class_names=config.class_names,
        skip_bad=config.skip_bad,
        data_dir=config.data_dir,
        include=config.include,
        exclude=config.exclude,
        class_level=config.class_level,
        split_folders=config.split_folders,
        in_memory=False,
    )
    return dataset if config.clean is None else remove_rows(dataset, config.clean)
