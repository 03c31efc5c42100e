"""`.keras` archives, as Keras 3 writes them: config.json, which describes the layers, and model.weights.h5.

The description is read as data. Nothing that it names is built or called.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.errors import DataError
from bloodcell_jax.weights.h5_reader import read_h5
from bloodcell_jax.weights.zip_members import ZipMembers

CONFIG, WEIGHTS = "config.json", "model.weights.h5"

# The description of ConvNeXt-XLarge has 0.1 MB.
MAX_CONFIG_BYTES = 16 * 2**20

_MAX_DEPTH = 16

# The last layers of a block; TensorFlow's Keras saves the sum as an operation.
_BLOCK_ENDS = frozenset({"Add", "LayerScale", "StochasticDepth", "TFOpLambda"})

# Layers that do not change what the weights mean.
_NEUTRAL = frozenset({"InputLayer", "Dropout", "Activation", "Softmax", "Identity"})


def is_keras_archive(path: Path) -> bool:
    """Return whether a zip archive has the members of a `.keras` file."""
    try:
        return {CONFIG, WEIGHTS} <= set(ZipMembers(path).names)
    except (zipfile.BadZipFile, ValueError, OSError):
        return False  # Whoever reads it next says what is wrong.


def read_keras_archive(path: Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return the tensors by name, and the classes of the last layers; see `last_layers`.

    Raises:
      DataError: the archive is damaged or compressed, or a member is not what its name says.
    """
    try:
        members = ZipMembers(path)
        config = _parse(members.read(CONFIG))
        start, size = members.find(WEIGHTS)
    except (ValueError, zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: cannot be read as a Keras archive: {error}") from error
    return read_h5(path, start, size), last_layers(list(_layer_classes(config)))


def last_layers(classes: list[str]) -> tuple[str, ...]:
    """Return the classes of the layers after the last block, without neutral ones, from those of all layers in order.

    It is empty if there is no block.
    """
    ends = [i for i, name in enumerate(classes) if name in _BLOCK_ENDS]
    return tuple(name for name in classes[ends[-1] + 1 :] if name not in _NEUTRAL) if ends else ()


def _parse(text: np.ndarray) -> Any:
    if len(text) > MAX_CONFIG_BYTES:
        raise ValueError(f"a {CONFIG} of {len(text):,} bytes; at most {MAX_CONFIG_BYTES:,} are read")
    try:
        config = json.loads(text.tobytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {CONFIG} is not JSON; save the model again") from error
    if not isinstance(config, dict):
        raise ValueError(f"its {CONFIG} describes no model; save the model again")
    return config


def _layer_classes(model: Any, depth: int = 0) -> Iterator[str]:
    """Yield the classes of a model's layers in order; a model in a model stands for its layers."""
    if not isinstance(model, dict) or depth > _MAX_DEPTH:
        return
    config = model.get("config")
    layers = config.get("layers") if isinstance(config, dict) else None
    if isinstance(layers, list):
        for layer in layers:
            yield from _layer_classes(layer, depth + 1)
    elif isinstance(model.get("class_name"), str):
        yield model["class_name"]
