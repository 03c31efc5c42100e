"""The stages of a run laid out over its steps."""

from dataclasses import dataclass
from typing import Any

import optax

from bloodcell_jax.config import Config, StageConfig
from bloodcell_jax.config.stage_names import unique_names
from bloodcell_jax.errors import UsageError
from bloodcell_jax.models.network import Params
from bloodcell_jax.train.freezing import Mask, partition, trainable_mask
from bloodcell_jax.train.layer_decay import Distances, distances_from_head
from bloodcell_jax.train.optimizers import create_optimizer, is_inner_matrix
from bloodcell_jax.train.packing import Joining
from bloodcell_jax.train.schedules import create_schedule


@dataclass(frozen=True)
class TrainingStage:
    """One stage of a run.

    Attributes:
      config: what was asked for.
      name: that of the configuration, with a number if an earlier stage has it.
      start, stop: the steps it runs, [start, stop).
      image_size: side in pixels of the images that it trains on.
      schedule: learning rate by updates since `start`.
      optimizer: over its trainable parameters.
      mask: tree of bools, its trainable parameters.
      distances: of all parameters from the head if the learning rate decays by layer, else None.
    """

    config: StageConfig
    name: str
    start: int
    stop: int
    image_size: int
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    mask: Mask
    distances: Distances | None

    def joining(self, platform: str) -> Joining:
        """Return which of its trainable parameters are joined on a platform of JAX."""
        return Joining(platform, self.distances, matrices_apart=self.config.optimizer.name == "muon")


def plan_stages(config: Config, params: Params, *, epoch_size: int) -> list[TrainingStage]:
    """Return the stages with their durations in steps; `params` may be shapes.

    Raises:
      UsageError: a stage's patterns do not fit the parameters, or it trains none that its optimizer is for.
    """
    steps_per_epoch = epoch_size / config.train.batch_size
    stages, start = [], 0
    names = unique_names([stage.name for stage in config.stages])
    for name, stage in zip(names, config.stages, strict=True):
        steps = stage.steps or max(1, round((stage.epochs or 0) * steps_per_epoch))
        distances = None if stage.optimizer.layer_decay is None else distances_from_head(params)
        mask = trainable_mask(params, stage.trainable)
        if stage.optimizer.name == "muon":
            _check_muon(name, partition(params, mask)[0])
        schedule = create_schedule(stage.optimizer, steps=steps, steps_per_epoch=steps_per_epoch)
        stages.append(
            TrainingStage(
                config=stage,
                name=name,
                start=start,
                stop=start + steps,
                image_size=image_size_of(config, stage),
                schedule=schedule,
                optimizer=create_optimizer(stage.optimizer, schedule, distances),
                mask=mask,
                distances=distances,
            )
        )
        start += steps
    return stages


def image_size_of(config: Config, stage: StageConfig) -> int:
    """Return the side of the images that a stage shows the network, in pixels."""
    return stage.image_size or config.data.image_size


def size_warning(config: Config) -> str | None:
    """Return what is wrong if the run ends on smaller images than those that it is evaluated on; None: nothing."""
    last, evaluated = image_size_of(config, config.stages[-1]), config.data.image_size
    if last == evaluated:
        return None
    return (
        f"the last stage trains on images of {last}x{last} pixels, and evaluation and prediction show the network "
        f"{evaluated}x{evaluated}; leave config.stages[-1].image_size unset, or set config.data.image_size={last}"
    )


def stage_of_step(stages: list[TrainingStage], step: int) -> TrainingStage:
    """Return the stage that runs `step`; the last one if the run is over."""
    return next((stage for stage in stages if step < stage.stop), stages[-1])


def _check_muon(name: str, trainable: dict[str, Any]) -> None:
    if not any(is_inner_matrix(path, leaf.shape) for path, leaf in trainable.items()):
        raise UsageError(
            f"stage {name}: optimizer.name=muon is for matrices between stem and head, and the stage trains none; "
            "choose adamw, which muon would leave all of its parameters to"
        )
