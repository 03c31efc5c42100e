"""The model of a finished run as one file, which needs nothing else of the workdir."""

import contextlib
import os
from importlib import metadata
from pathlib import Path

import jax

from bloodcell_jax.config import Config
from bloodcell_jax.devices.parallel import create_parallel
from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.metrics import ranking_of
from bloodcell_jax.models.network import Params
from bloodcell_jax.models.registry import build_model, param_shapes
from bloodcell_jax.models.variants import VARIANTS
from bloodcell_jax.weights import WeightsInfo
from bloodcell_jax.weights.calibration import Calibration
from bloodcell_jax.weights.info import info_from_dict
from bloodcell_jax.weights.model_file import ModelRecord, read_model_record, write_model_file
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.checkpoints import Checkpoints, restore_params


def calibration_of_model(workdir: Workdir, step: int) -> Calibration | None:
    """Return the calibration of the model that a workdir holds; None if it has none, or is of another step."""
    try:
        record = read_model_record(workdir.model)
    except DataError:
        return None
    return record.calibration if record.step == step else None


def write_model(
    workdir: Workdir,
    config: Config,
    params: Params,
    start: WeightsInfo | None,
    *,
    step: int,
    metrics: dict[str, float | None],
    calibration: Calibration | None = None,
) -> None:
    """Write the model of a run.

    Args:
      config: the run's, resolved.
      params: of the checkpoint of `step`, as evaluation uses them.
      start: the info of the weights that the run began with; the model inherits their license.
      step: of the checkpoint.
      metrics: what the run logged of val at that step.
      calibration: what val says of it; None: the data are not at hand.

    Raises:
      MachineError: the file cannot be written.
    """
    record = model_record(workdir, config, step=step, metrics=metrics, calibration=calibration)
    write_model_file(workdir.model, params, record, model_info(config, start))


def model_record(
    workdir: Workdir, config: Config, *, step: int, metrics: dict[str, float | None], calibration: Calibration | None
) -> ModelRecord:
    """Return what the file of a run's model says of the run; the arguments are those of `write_model`."""
    return ModelRecord(
        config,
        step,
        metrics=metrics,
        version=metadata.version("bloodcell_jax"),
        view=workdir.read_environment()["data"].get("view"),
        calibration=calibration,
    )


def model_info(config: Config, start: WeightsInfo | None) -> WeightsInfo:
    """Return the facts about the model of a run; `start` is the info of the weights that it began with."""
    model, own = config.model, VARIANTS.get(config.model.variant)
    return WeightsInfo(
        variant=model.variant,
        num_classes=model.num_classes,
        norm_eps=own and (own.norm_eps if model.norm_eps is None else model.norm_eps),
        activation=own and (model.activation or own.activation),
        mean=model.mean,
        std=model.std,
        input_size=config.data.image_size,
        class_names=config.data.class_names,
        licence=start.licence if start else "",
        source=f"trained on {config.data.source}" + (f", from {start.source}" if start else ""),
        stem_stride=model.stem_stride,
    )


def complete_model(path: str | Path) -> None:
    """Write the model of a finished run into its workdir if an earlier version left none; ignore any other path.

    Raises:
      DataError: the run is not finished, or its files cannot be read.
      MachineError: the workdir cannot be written to.
    """
    workdir = Workdir(Path(os.path.expanduser(path)))
    if workdir.model.exists() or not (workdir.config.exists() and workdir.checkpoints.is_dir()):
        return
    config, environment = workdir.read_config(), workdir.read_environment()
    # Earlier versions, and runs under way, only know how many steps there are to be.
    steps = environment.get("steps_trained", environment.get("steps", 0))
    with contextlib.closing(Checkpoints(workdir.checkpoints, read_only=True)) as checkpoints:
        folders = checkpoints.folders
        last = max(folders.steps(), default=0)
        best = next(folders.usable(folders.best(ranking_of(config.train.best_metric))), None)
        if last < steps or best is None:
            raise DataError(f"{workdir}: a run that is not finished (step {last} of {steps}); run its command again")
        shapes = param_shapes(build_model(config.model), config.data.image_size)
        sharding = create_parallel("jit", jax.device_count()).replicated
        params = restore_params(checkpoints, best, shapes, config.train.ema_decay, sharding)
        metrics = folders.record(best)["metrics"]
        write_model(workdir, config, params, start_info(workdir), step=best, metrics=metrics)


def start_info(workdir: Workdir) -> WeightsInfo | None:
    """Return the info of the weights that a run began with; None: they were drawn at random.

    Raises:
      DataError: it cannot be read.
    """
    values = workdir.read_environment().get("weights")
    if not values:
        return None
    try:
        return info_from_dict(values)
    except (TypeError, ValueError) as error:
        raise DataError(f"{workdir.environment}: weights cannot be read ({error}); delete it and run again") from error
