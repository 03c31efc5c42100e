"""A trained model in one safetensors file: its parameters and everything that a prediction needs besides them."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from bloodcell_jax.config import Config, from_dict, to_dict
from bloodcell_jax.config.data import GEOMETRY
from bloodcell_jax.data.geometry import View
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.models.network import Params, leaves_by_path
from bloodcell_jax.models.registry import build_model, param_shapes
from bloodcell_jax.weights.calibration import PREFIX, Calibration, calibration_from, calibration_values
from bloodcell_jax.weights.catalog import find_part
from bloodcell_jax.weights.files import StoredWeights, read_file
from bloodcell_jax.weights.info import WeightsInfo
from bloodcell_jax.weights.safetensors_file import write_safetensors

# The key of the metadata that keeps what `ModelRecord` says, as JSON.
RUN_KEY = "bloodcell_jax.run"


@dataclass(frozen=True)
class ModelRecord:
    """What a model's file says of the run that made it.

    Attributes:
      config: the network, the geometry of images, the class names and the batch of evaluation; the rest are defaults.
      step: step of the checkpoint.
      metrics: what the run logged of val at that step.
      version: of this library.
      view: what the model saw of the image files that it was trained on, as `data.geometry.View`; None: of arrays.
      calibration: what val said of it; None: nothing was asked, as in files of earlier versions.
    """

    config: Config
    step: int
    metrics: dict[str, float | None]
    version: str
    view: dict[str, int] | None = None
    calibration: Calibration | None = None


def write_model_file(path: Path, params: Params, record: ModelRecord, info: WeightsInfo) -> None:
    """Write a trained model; a reader never sees half a file.

    Raises:
      MachineError: the file cannot be written.
    """
    names = [field.name for field in dataclasses.fields(record) if field.name != "calibration"]
    values = {name: getattr(record, name) for name in names} | {"config": _config_values(record.config)}
    tensors = leaves_by_path(jax.tree.map(np.asarray, params))
    if record.calibration is not None:
        values["calibration"], own = calibration_values(record.calibration)
        tensors |= own
    write_safetensors(path, tensors, info, {RUN_KEY: json.dumps(values, sort_keys=True)})


def read_model_file(path: Path) -> tuple[Params, ModelRecord]:
    """Return the parameters and the record of a model that a run wrote.

    Raises:
      DataError: the file is none; names what it lacks.
    """
    stored, record = _read(path)
    expected = leaves_by_path(param_shapes(build_model(record.config.model), record.config.data.image_size))
    params = {name: tensor for name, tensor in stored.tensors.items() if not name.startswith(PREFIX)}
    shapes = {name: tuple(tensor.shape) for name, tensor in params.items()}
    if shapes != {name: leaf.shape for name, leaf in expected.items()}:
        raise DataError(f"{path}: its tensors are not those of the {record.config.model.variant} that its metadata say")
    # Copies: the file may change while the model is in use.
    params = {name: np.array(tensor, np.float32) for name, tensor in params.items()}
    return unflatten_dict(params, sep="/"), record


def read_model_record(path: Path) -> ModelRecord:
    """Return the record of a model that a run wrote; no parameter is read.

    Raises:
      DataError: as `read_model_file`.
    """
    return _read(path)[1]


def read_model_info(path: Path) -> tuple[ModelRecord, WeightsInfo | None]:
    """Return the record of a model that a run wrote, and the facts about its weights, such as their license.

    Raises:
      DataError: as `read_model_file`.
    """
    stored, record = _read(path)
    return record, stored.info


def record_of_start(weights: str) -> tuple[Path, ModelRecord] | None:
    """Return the file that `model.weights` names and what it says of its run; None: it is no classifier of cells."""
    path, _ = find_part(weights)
    try:
        return path, read_model_record(path)
    except DataError:
        return None


def _config_values(config: Config) -> dict[str, Any]:
    """Return the part of a run's configuration that a prediction needs."""
    values = to_dict(config)
    return {
        "data": {name: values["data"][name] for name in (*GEOMETRY, "class_names")},
        "model": values["model"] | {"weights": None},
        "evaluate": {"batch_size": values["evaluate"]["batch_size"]},
    }


def _read(path: Path) -> tuple[StoredWeights, ModelRecord]:
    stored = read_file(path)
    if RUN_KEY not in stored.metadata:
        named = stored.info is not None and stored.info.class_names
        raise DataError(
            f"{path}: holds weights, but not {'' if named else 'the class names and '}the image geometry that a "
            "prediction needs; give the model.safetensors of a finished run, or train from this file by "
            "--config.model.weights"
        )
    try:
        values = json.loads(stored.metadata[RUN_KEY])
        own = values.get("calibration")
        calibration = None if own is None else calibration_from(own, stored.tensors)
        record = ModelRecord(**values | {"config": from_dict(values["config"]), "calibration": calibration})
        _check_types(record)
        return stored, record
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError, UsageError) as error:
        raise DataError(
            f"{path}: its metadata {RUN_KEY} cannot be read ({error}); another version of the library wrote it, or it "
            "is damaged"
        ) from error


def _check_types(record: ModelRecord) -> None:
    """Check what dataclasses do not.

    Raises:
      TypeError: a field has another type than it should.
    """
    if type(record.step) is not int or not isinstance(record.version, str):
        raise TypeError("step is no number, or version no text")
    if record.view is not None and not (
        isinstance(record.view, dict)
        and record.view.keys() == set(View._fields)
        and all(type(pixels) is int and 0 < pixels < 2**31 for pixels in record.view.values())
    ):
        raise TypeError("view is none")
    values = record.metrics.values() if isinstance(record.metrics, dict) else ["none"]
    if not all(isinstance(value, int | float | None) for value in values):
        raise TypeError("metrics hold other values than numbers")
    if not record.config.data.class_names or record.config.model.num_classes != len(record.config.data.class_names):
        raise TypeError("it does not name each class")
