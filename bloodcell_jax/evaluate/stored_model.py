"""Trained models from where they are stored: the workdir of a run, or the file of its model."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import jax

from bloodcell_jax.config import Config
from bloodcell_jax.data.geometry import View
from bloodcell_jax.devices.parallel import create_parallel
from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.chosen_checkpoint import calibration_of, choose_step, say_uncalibrated
from bloodcell_jax.evaluate.metrics import ranking_of
from bloodcell_jax.models.network import Params
from bloodcell_jax.models.registry import build_model, param_shapes
from bloodcell_jax.weights.calibration import Calibration
from bloodcell_jax.weights.model_file import read_model_file
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.checkpoints import Checkpoints, restore_params


class StoredModel(NamedTuple):
    """A trained model, its parameters on every device; the fields are arguments of `Classifier`."""

    config: Config
    params: Params
    step: int
    workdir: Workdir | None
    file: Path | None
    view: View | None
    calibration: Calibration | None


def read_workdir(workdir: str | Path, checkpoint: str | int) -> StoredModel:
    """Return the model of a run; the arguments and errors are those of `Classifier.from_workdir`."""
    run = Workdir(workdir)
    config = run.read_config()
    if not run.checkpoints.is_dir():
        raise DataError(f"{run.checkpoints}: no checkpoint yet; train first, or wait for the first one")
    shapes = param_shapes(build_model(config.model), config.data.image_size)
    sharding = create_parallel("jit", jax.device_count()).replicated
    with contextlib.closing(Checkpoints(run.checkpoints, read_only=True)) as checkpoints:
        step = choose_step(checkpoints.folders, checkpoint, ranking_of(config.train.best_metric))
        params = restore_params(checkpoints, step, shapes, config.train.ema_decay, sharding)
    view = run.read_environment()["data"].get("view") if run.environment.exists() else None
    calibration = calibration_of(run, step)
    return StoredModel(config, params, step, run, None, View(**view) if view else None, calibration)


def read_file(path: str | Path) -> StoredModel:
    """Return the model in a file; the errors are those of `Classifier.from_file`."""
    file = Path(os.path.expanduser(path))
    params, record = read_model_file(file)
    params = jax.device_put(params, create_parallel("jit", jax.device_count()).replicated)
    if record.calibration is None:
        say_uncalibrated(path, "written by an earlier version, or from a run whose data were not at hand")
    view = View(**record.view) if record.view else None
    return StoredModel(record.config, params, record.step, None, file, view, record.calibration)
