"""The configuration of a run.

A configuration is a Python file with `get_config(arg="") -> Config`. Any field is overridden on the command line
(`--config.train.batch_size=64`). Training resolves it and writes it to `workdir/config.json`, which is data: enough to
build the model again.
"""

from bloodcell_jax.config import recipes
from bloodcell_jax.config.data import AUTO, Crop, DataConfig
from bloodcell_jax.config.fields import (
    AugmentConfig,
    Config,
    EvaluateConfig,
    ModelConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
)
from bloodcell_jax.config.option import leaves
from bloodcell_jax.config.serialization import as_text, from_dict, from_text, to_dict
from bloodcell_jax.config.validation import check_all_read, group_pattern, power_range, validate

__all__ = [
    "AUTO",
    "AugmentConfig",
    "Config",
    "Crop",
    "DataConfig",
    "EvaluateConfig",
    "ModelConfig",
    "OptimizerConfig",
    "StageConfig",
    "TrainConfig",
    "as_text",
    "check_all_read",
    "from_dict",
    "from_text",
    "group_pattern",
    "leaves",
    "power_range",
    "recipes",
    "to_dict",
    "validate",
]
