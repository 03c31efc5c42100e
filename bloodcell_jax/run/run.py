"""A run: everything that its parts need, and what each of them makes of it."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from bloodcell_jax.augment.policies import Augmentation
from bloodcell_jax.config import Config
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.sampling import Sampler
from bloodcell_jax.data.splits import describe_splits, split_rule
from bloodcell_jax.devices.parallel import AXIS, DataParallel
from bloodcell_jax.evaluate.slices import Slices, read_slices
from bloodcell_jax.models.network import Network, Params
from bloodcell_jax.models.registry import init_params
from bloodcell_jax.run.state_sharding import spread, state_shardings, tree_shapes
from bloodcell_jax.train.class_balance import class_weights, logit_offset
from bloodcell_jax.train.guard import Guard
from bloodcell_jax.train.losses import create_loss
from bloodcell_jax.train.randomness import INIT, step_key
from bloodcell_jax.train.stages import TrainingStage
from bloodcell_jax.train.state import EmaDecay, TrainState, begin_stage, create_ema_decay, create_state
from bloodcell_jax.train.step import StepInput, TrainStep, make_gradients, make_train_step
from bloodcell_jax.weights import WeightsInfo, load_weights


@dataclass(frozen=True)
class Run:
    """A run, ready to start.

    Attributes:
      config: resolved: the data and the weights have filled in what was unset.
      data_hash: sha256 of the dataset.
      splits: example indices by split.
      streams: images are read ahead of each step; otherwise all of them lie on every device.
      param_shapes: the parameters as shapes.
      weights_info: what is known of the pretrained weights; None for random ones.
    """

    config: Config
    dataset: Dataset
    data_hash: str
    splits: dict[str, np.ndarray]
    sampler: Sampler
    augmentation: Augmentation
    model: Network
    param_shapes: Params
    stages: list[TrainingStage]
    parallel: DataParallel
    weights_info: WeightsInfo | None
    streams: bool = False

    @property
    def total_steps(self) -> int:
        """Steps of all stages together."""
        return self.stages[-1].stop

    @property
    def steps_per_epoch(self) -> int:
        """Steps that show about one epoch of the sampler."""
        return max(1, round(self.sampler.epoch_size / self.config.train.batch_size))

    @property
    def batch_unit(self) -> int:
        """Every batch is a multiple of it: each device holds whole blocks of the augmentation, and equal parts."""
        block = self.augmentation.block if self.augmentation.needs_blocks else 1
        return self.parallel.mesh.size * math.lcm(block, self.config.train.accumulate)

    @cached_property
    def splits_record(self) -> dict[str, Any]:
        """The content of `splits.json`, which says what the run learns from and is tested on."""
        return describe_splits(self.splits, self.data_hash, split_rule(self.dataset, self.splits, self.config.data))

    @cached_property
    def slices(self) -> Slices:
        """What evaluations score by itself.

        Raises:
          UsageError, DataError: as `read_slices`.
        """
        return read_slices(self.dataset, self.config.evaluate.slices)

    def initial_state(self) -> TrainState:
        """Return the state before step 0, on the devices."""
        stage, params = self.stages[0], self._initial_params()
        if self.config.train.shard_state == "none":
            return self.parallel.place_state(self._fresh_state(params, stage))
        # No device need ever hold all of it.
        create = jax.jit(lambda params: self._fresh_state(params, stage), out_shardings=self.state_shardings(stage))
        return create(self.parallel.place_state(params))

    def state_shapes(self, stage: TrainingStage) -> TrainState:
        """Return the state that runs the steps of a stage, as shapes."""
        shapes = self._shapes_of_state(stage)
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            shapes,
            self.state_shardings(stage),
        )

    def state_shardings(self, stage: TrainingStage) -> TrainState:
        """Return how each array of that state lies on the devices."""
        return state_shardings(self._shapes_of_state(stage), self.parallel, self.config.train.shard_state)

    def tree_shapes(self, stage: TrainingStage) -> dict[str, Any]:
        """Return the parts of that state as a checkpoint stores them, as shapes with shardings to restore under."""
        trees = jax.eval_shape(TrainState.to_trees, self._shapes_of_state(stage))
        return tree_shapes(trees, self.parallel, self.config.train.shard_state)

    def train_step(self, stage: TrainingStage, step_input: StepInput) -> TrainStep:
        """Return the pure step of a stage."""
        train = self.config.train
        gradients_of = make_gradients(
            step_input,
            batch_size=train.batch_size,
            accumulate=train.accumulate,
            jsd=train.jsd,
            loss=create_loss(train),
            axis_name=AXIS,
            class_weights=self._class_weights(),
        )
        return make_train_step(
            spread(gradients_of, self.parallel, train.shard_state),
            stage.optimizer,
            stage.schedule,
            batch_size=train.batch_size,
            guard=self.guard,
            ema_decay=self.ema_decay,
        )

    def plan_batch(self, step: int) -> dict[str, np.ndarray]:
        """Return what this process feeds to a step except the images: indices, labels and slots, [local batch] each.

        If predictions are to follow another prior than training shows: logit_offset [local batch, classes] as well.
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

    def examples_of(self, step: int) -> np.ndarray:
        """Return the examples of the whole batch of a step, int32 [batch]."""
        size = self.config.train.batch_size
        return self.sampler.indices(step * size, (step + 1) * size)

    def ids_of(self, step: int) -> list[str]:
        """Return the ids of the examples of the whole batch of a step."""
        return [str(self.dataset.ids[index]) for index in self.examples_of(step).tolist()]

    def with_batch_size(self, batch_size: int) -> "Run":
        """Return a run that differs in the global batch alone: the steps of its stages are not planned anew."""
        train = replace(self.config.train, batch_size=batch_size)
        return replace(self, config=replace(self.config, train=train))

    def place_seed(self) -> jax.Array:
        """Return the seed as a step takes it."""
        return self.parallel.place_state(np.uint32(self.config.seed))

    @property
    def ema_decay(self) -> EmaDecay | None:
        """The decay of the moving average by step, or None if it is off."""
        return create_ema_decay(self.config.train.ema_decay, warmup=self.config.train.ema_warmup)

    @property
    def guard(self) -> Guard:
        """What tells which updates are skipped."""
        return Guard(self.config.train.max_bad_steps, self.config.train.spike_sigma)

    def begin_stage(self, state: TrainState, stage: TrainingStage) -> TrainState:
        """Return the state with which a stage begins, on the devices."""
        begin = jax.jit(lambda state: self._begun(state, stage), out_shardings=self.state_shardings(stage))
        return begin(state)

    def _begun(self, state: TrainState, stage: TrainingStage) -> TrainState:
        return begin_stage(state, stage.optimizer, stage.mask, stage.joining(self.parallel.platform))

    def _shapes_of_state(self, stage: TrainingStage) -> TrainState:
        return jax.eval_shape(lambda params: self._fresh_state(params, stage), self.param_shapes)

    def _fresh_state(self, params: Params, stage: TrainingStage) -> TrainState:
        state = create_state(params, self.guard, with_ema=self.config.train.ema_decay is not None)
        return self._begun(state, stage)

    def _initial_params(self) -> Params:
        config = self.config
        key = step_key(config.seed, INIT, 0)
        if config.model.weights is not None:
            names = config.data.class_names
            return load_weights(config.model.weights, self.model, head_key=key, class_names=names)
        return jax.jit(lambda key: init_params(self.model, key, config.data.image_size))(key)

    def _class_weights(self) -> np.ndarray | None:
        train, quotas = self.config.train, self.sampler.quotas(0)
        mix = quotas / quotas.sum()
        return class_weights(train.class_weights, self.sampler.counts, mix, beta=train.class_weights_beta)

    def _logit_offsets(self, positions: np.ndarray) -> np.ndarray:
        """Return the offset of each position of the sampler, [n, classes]: the mix may change from epoch to epoch."""
        epochs, rows = np.unique(positions // self.sampler.epoch_size, return_inverse=True)
        # The prior is that of the split, also where the sampler shows a few labels of each class.
        counts = self.dataset.class_counts(self.splits["train"])
        target, weights = self.config.train.logit_adjustment, self._class_weights()
        mixes = [self.sampler.quotas(epoch) for epoch in epochs]
        return np.stack([logit_offset(target, counts, mix / mix.sum(), weights) for mix in mixes])[rows]
