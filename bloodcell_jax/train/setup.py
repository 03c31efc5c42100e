"""From a configuration to everything a run needs, before anything is written."""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bloodcell_jax.augment.policies import Augmentation
from bloodcell_jax.augment.policy_strings import parse_mix, parse_policy
from bloodcell_jax.config import Config, ModelConfig, power_range, validate
from bloodcell_jax.data.cleaning import remove_rows
from bloodcell_jax.data.dataset import Dataset, check_learnable
from bloodcell_jax.data.host_memory import free_host_memory
from bloodcell_jax.data.launch_cache import cached_duplicate_groups, cached_sha256, known_duplicate_groups
from bloodcell_jax.data.sampling import Sampler, create_sampler
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.data.splits import cuts_anything, split_dataset
from bloodcell_jax.errors import UsageError
from bloodcell_jax.models import create_model
from bloodcell_jax.train.class_balance import class_weights, logit_offset
from bloodcell_jax.train.feed import choose_streaming
from bloodcell_jax.train.parallel import AXIS, DataParallel, create_parallel
from bloodcell_jax.train.stages import Stage, plan_stages
from bloodcell_jax.train.state import TrainState, begin_stage, create_state
from bloodcell_jax.train.step import INIT_STREAM, make_train_step, step_key
from bloodcell_jax.weights import WeightsInfo, load_weights, read_weights_info
from bloodcell_jax.weights.info import IMAGENET_MEAN, IMAGENET_STD


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
            self.model,
            self.augmentation,
            stage.optimizer,
            stage.schedule,
            mask=stage.mask,
            first_step=stage.start,
            batch_size=config.train.batch_size,
            mean=config.model.mean,
            std=config.model.std,
            label_smoothing=config.train.label_smoothing,
            jsd=config.train.jsd,
            ema_decay=config.train.ema_decay,
            axis_name=AXIS,
            class_weights=self._class_weights(),
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


def prepare_run(config: Config, dataset: Dataset | None = None) -> Run:
    """Load the data and lay the run out; writes nothing.

    Args:
      config: what to do.
      dataset: takes the place of what `config.data` names, where given.

    Raises:
      UsageError, DataError: as the parts say.
    """
    validate(config)
    augmentation = create_augmentation(config)
    parallel = create_parallel(config.train.backend, config.train.batch_size)
    check_blocks(augmentation, config.train.batch_size, parallel.mesh.size)
    # Before the data: a misspelt variant or file should not wait for them.
    create_model(config.model.variant, 2)
    weights_info = read_weights_info(config.model.weights) if config.model.weights is not None else None
    if dataset is None:
        dataset = load_source(
            config.data.source,
            image_size=config.data.image_size,
            crop=config.data.crop,
            class_names=config.data.class_names,
            skip_bad=config.data.skip_bad,
            data_dir=config.data.data_dir,
            in_memory=False,
        )
    if config.data.clean is not None:
        dataset = remove_rows(dataset, config.data.clean)
    check_learnable(dataset)
    config = resolve(config, dataset, weights_info)
    model, shapes = build_model(config.model), param_shapes(config)
    streams = choose_streaming(config.data, dataset, sum(leaf.size for leaf in jax.tree.leaves(shapes)))
    if not streams:
        dataset = dataset.in_memory()
    data_hash = cached_sha256(dataset)
    splits = cut_splits(dataset, data_hash, config)
    sampler = create_sampler(
        config.data.sampler,
        dataset.labels,
        splits["train"],
        seed=config.seed,
        samples_per_class=config.data.samples_per_class,
        redraw=config.data.sampler_redraw,
        power=power_range(config.data.sampler_power),
    )
    stages = plan_stages(config, shapes, epoch_size=sampler.epoch_size)
    sampler = replace(sampler, epochs=math.ceil(stages[-1].stop * config.train.batch_size / sampler.epoch_size))
    return Run(
        config=config,
        dataset=dataset,
        data_hash=data_hash,
        splits=splits,
        sampler=sampler,
        augmentation=augmentation,
        model=model,
        param_shapes=shapes,
        stages=stages,
        parallel=parallel,
        weights_info=weights_info,
        streams=streams,
    )


def create_augmentation(config: Config) -> Augmentation:
    """Return what training pictures go through.

    Raises:
      UsageError: a string cannot be read, or the consistency loss does not fit it.
    """
    policy, mix = parse_policy(config.augment.policy), parse_mix(config.augment.mix)
    jsd = config.train.jsd
    if jsd is not None and "augmix" not in policy:
        raise UsageError(f"config.train.jsd={jsd:g}: needs augmix in config.augment.policy, which is {str(policy)!r}")
    if jsd is not None and mix.operations:
        raise UsageError(f"config.train.jsd={jsd:g}: does not go with config.augment.mix={str(mix)!r}; unset one")
    return Augmentation(policy, mix, config.augment.block, views=jsd is not None)


def check_blocks(augmentation: Augmentation, batch_size: int, devices: int) -> None:
    """Check that every device holds whole blocks where choices are made inside them.

    Raises:
      UsageError: it does not; names the nearest batch sizes that fit.
    """
    block, per_device = augmentation.block, batch_size // devices
    if not augmentation.needs_blocks or per_device % block == 0:
        return
    lower = per_device // block * block * devices
    nearest = f"{lower} or {lower + block * devices}" if lower else f"{block * devices}"
    raise UsageError(
        f"config.train.batch_size={batch_size}: {per_device} on each of {devices} devices, which is no multiple of "
        f"config.augment.block={block}, as this augmentation needs; the nearest is {nearest}, or set another block"
    )


def cut_splits(dataset: Dataset, data_hash: str, config: Config) -> dict[str, np.ndarray]:
    """Return the splits of a run; duplicates are looked for where something is to be cut and they stay together.

    Raises:
      UsageError: looking for them needs more memory than there is.
    """
    groups = None
    if config.data.group_duplicates and cuts_anything(dataset):
        unread = dataset.images.nbytes * (not isinstance(dataset.images, np.ndarray))
        if unread > free_host_memory() / 2 and known_duplicate_groups(dataset, data_hash) is None:
            raise UsageError(
                f"config.data.group_duplicates: {dataset.source} leaves splits to be cut, and what shows the same cell "
                f"is found by comparing all {unread / 1e9:.0f} GB of pictures in memory, which has not enough free; "
                "set it to false, or prepare the source with splits of its own"
            )
        groups = cached_duplicate_groups(dataset, data_hash)
    return split_dataset(dataset, config.data.splits, seed=config.seed, groups=groups)


def resolve(config: Config, dataset: Dataset, weights_info: WeightsInfo | None) -> Config:
    """Return a copy in which what the data and the weights decide is filled in.

    Raises:
      UsageError: the configuration contradicts them; both values are named.
    """
    config = copy.deepcopy(config)
    if config.model.num_classes not in (None, len(dataset.class_names)):
        raise UsageError(
            f"config.model.num_classes={config.model.num_classes}: {dataset.source} has "
            f"{len(dataset.class_names)} classes ({', '.join(dataset.class_names)})"
        )
    config.data = replace(config.data, class_names=dataset.class_names)
    if weights_info is not None:
        config.model = _resolve_weights(config.model, weights_info)
    config.model = replace(
        config.model,
        num_classes=len(dataset.class_names),
        mean=config.model.mean or IMAGENET_MEAN,
        std=config.model.std or IMAGENET_STD,
    )
    return config


def _resolve_weights(config: ModelConfig, info: WeightsInfo) -> ModelConfig:
    """Return the configuration with what its weights were trained with where it leaves that unset."""
    filled = {}
    for name in ("variant", "norm_eps", "activation", "mean", "std"):
        asked, trained_with = getattr(config, name), getattr(info, name)
        # Of a file that nobody knows, ImageNet's mean and std are an assumption, which the configuration may correct.
        assumed = not info.licence and trained_with in (IMAGENET_MEAN, IMAGENET_STD)
        if asked and trained_with and asked != trained_with and not assumed:
            raise UsageError(
                f"config.model.{name}={asked}: {config.weights} was trained with {trained_with}; set that, or leave "
                "it unset"
            )
        filled[name] = asked or trained_with
    return replace(config, **filled)


def build_model(config: ModelConfig) -> nn.Module:
    """Return the network of a resolved configuration."""
    names = ("drop_path", "layer_scale", "head_init_scale", "stem_stride", "norm_eps", "activation", "remat")
    # Only what was asked for: a variant's own values stand, and one that lacks an option says so.
    changed = {name: getattr(config, name) for name in names if getattr(config, name) != getattr(ModelConfig(), name)}
    return create_model(config.variant, config.num_classes, dtype=jnp.dtype(config.dtype), **changed)
