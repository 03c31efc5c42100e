"""A run: everything that its parts need, and what each of them makes of it."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bloodcell_jax.augment.policies import Augmentation
from bloodcell_jax.config import Config, ModelConfig
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.sampling import Sampler
from bloodcell_jax.models import create_model
from bloodcell_jax.train.class_balance import class_weights, logit_offset
from bloodcell_jax.train.parallel import AXIS, DataParallel
from bloodcell_jax.train.stages import Stage
from bloodcell_jax.train.state import TrainState, begin_stage, create_state
from bloodcell_jax.train.step import (
    INIT_STREAM,
    StepInput,
    features_input,
    make_train_step,
    pictures_input,
    step_key,
)
from bloodcell_jax.weights import WeightsInfo, load_weights


@dataclass(frozen=True)
class Run:
    """A run, ready to start.

    Attributes:
      config: resolved: nothing that the data or the weights decide is left unset.
      data_hash: sha256 of the dataset.
      splits: example indices by split.
      streams: pictures are read ahead of each step; else all of them lie on every device.
      param_shapes: the parameters as shapes.
      weights_info: of the pretrained weights; None from random ones.
    """

    config: Config
    dataset: Dataset
    data_hash: str
    splits: dict[str, np.ndarray]
    sampler: Sampler
    augmentation: Augmentation
    model: nn.Module
    param_shapes: Any
    stages: list[Stage]
    parallel: DataParallel
    weights_info: WeightsInfo | None
    streams: bool = False

    @property
    def total_steps(self) -> int:
        """Steps of all stages together."""
        return self.stages[-1].stop

    @property
    def steps_per_epoch(self) -> int:
        """Steps that show about one epoch of the sampler's plan."""
        return max(1, round(self.sampler.epoch_size / self.config.train.batch_size))

    def initial_state(self) -> TrainState:
        """Return the state before step 0, on the devices."""
        return self.parallel.place_state(self._fresh_state(self._initial_params(), self.stages[0]))

    def state_shapes(self, stage: Stage) -> TrainState:
        """Return the state that runs the steps of a stage, as shapes."""
        return jax.eval_shape(lambda params: self._fresh_state(params, stage), self.param_shapes)

    def _fresh_state(self, params: Any, stage: Stage) -> TrainState:
        state = create_state(params, with_ema=self.config.train.ema_decay is not None)
        return begin_stage(state, stage.optimizer, stage.mask)

    def train_step(self, stage: Stage):
        """Return the pure step of a stage."""
        config = self.config
        return make_train_step(
            self._step_input(stage),
            stage.optimizer,
            stage.schedule,
            mask=stage.mask,
            first_step=stage.start,
            batch_size=config.train.batch_size,
            jsd=config.train.jsd,
            ema_decay=config.train.ema_decay,
            axis_name=AXIS,
            class_weights=self._class_weights(),
        )

    def _step_input(self, stage: Stage) -> StepInput:
        config = self.config
        if stage.config.cached_views is not None:
            return features_input(self.model, label_smoothing=config.train.label_smoothing)
        return pictures_input(
            self.model,
            self.augmentation,
            mean=config.model.mean,
            std=config.model.std,
            label_smoothing=config.train.label_smoothing,
        )

    def plan_batch(self, step: int) -> dict[str, np.ndarray]:
        """Return what this process feeds to a step, but for the pictures: indices, labels, slots, [local batch] each.

        Where predictions are to follow another prior than training shows, logit_offset [local batch, classes] as well.
        """
        size = self.config.train.batch_size
        rows = self.parallel.local_rows(size)
        slots = np.arange(rows.start, rows.stop, dtype=np.int32)
        positions = step * size + slots.astype(np.int64)
        indices = self.sampler.indices(positions[0], positions[-1] + 1)
        batch = {"indices": indices, "labels": self.dataset.labels[indices], "slots": slots}
        if self.config.train.logit_adjustment != "none":
            batch["logit_offset"] = self._logit_offsets(positions)
        return batch

    def _class_weights(self) -> np.ndarray | None:
        train, quotas = self.config.train, self.sampler.quotas(0)
        mix = quotas / quotas.sum()
        return class_weights(train.class_weights, self.sampler.counts, mix, beta=train.class_weights_beta)

    def _logit_offsets(self, positions: np.ndarray) -> np.ndarray:
        """Return the offset of each position of the stream, [n, classes]: the mix may change from epoch to epoch."""
        epochs, rows = np.unique(positions // self.sampler.epoch_size, return_inverse=True)
        target, counts, weights = self.config.train.logit_adjustment, self.sampler.counts, self._class_weights()
        mixes = [self.sampler.quotas(epoch) for epoch in epochs]
        return np.stack([logit_offset(target, counts, mix / mix.sum(), weights) for mix in mixes])[rows]

    def place_seed(self) -> jax.Array:
        """Return the seed as a step takes it."""
        return self.parallel.place_state(np.uint32(self.config.seed))

    def _initial_params(self) -> Any:
        config = self.config
        key = step_key(config.seed, INIT_STREAM, 0)
        if config.model.weights is not None:
            return load_weights(config.model.weights, self.model, head_key=key)
        return jax.jit(lambda key: init_params(self.model, key, config.data.image_size))(key)


def init_params(model: nn.Module, key: jax.Array, image_size: int) -> Any:
    """Return freshly drawn parameters."""
    return model.init(key, jnp.zeros((1, image_size, image_size, 3)), train=False)["params"]


def param_shapes(config: Config) -> Any:
    """Return the parameters of a resolved configuration as shapes; touches no device."""
    model = build_model(config.model)
    return jax.eval_shape(lambda: init_params(model, step_key(0, INIT_STREAM, 0), config.data.image_size))


def build_model(config: ModelConfig) -> nn.Module:
    """Return the network of a resolved configuration."""
    names = ("drop_path", "layer_scale", "head_init_scale", "stem_stride", "norm_eps", "activation", "remat")
    # Only what was asked for: a variant's own values stand, and one that lacks an option says so.
    changed = {name: getattr(config, name) for name in names if getattr(config, name) != getattr(ModelConfig(), name)}
    return create_model(config.variant, config.num_classes, dtype=jnp.dtype(config.dtype), **changed)
