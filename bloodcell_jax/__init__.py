"""Train, evaluate and use classifiers of single blood cells with JAX.

The public API, imported when it is first used, so that `import bloodcell_jax` touches no device.
"""

import importlib
from typing import Any

_PUBLIC = {
    "Classifier": "bloodcell_jax.evaluate.classifier",
    "Config": "bloodcell_jax.config",
    "WeightsInfo": "bloodcell_jax.weights",
    "audit": "bloodcell_jax.data.audit.findings",
    "augment": "bloodcell_jax.augment",
    "create_model": "bloodcell_jax.models",
    "decay_mask": "bloodcell_jax.train.freezing",
    "load_source": "bloodcell_jax.data.sources",
    "load_weights": "bloodcell_jax.weights",
    "read_weights_info": "bloodcell_jax.weights",
    "save_weights": "bloodcell_jax.weights",
    "train_and_evaluate": "bloodcell_jax.run.job",
    "trainable_mask": "bloodcell_jax.train.freezing",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_PUBLIC[name])
    return module if _PUBLIC[name].endswith(f".{name}") else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
