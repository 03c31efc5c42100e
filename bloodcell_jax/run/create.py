"""From a configuration to a run that is ready to start: checks, data, splits and stages. Nothing is written."""

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from bloodcell_jax.augment.policies import Augmentation
from bloodcell_jax.augment.policy_strings import parse_mix, parse_policy
from bloodcell_jax.config import Config, ModelConfig, TrainConfig, check_all_read, validate
from bloodcell_jax.data.dataset import Dataset, check_learnable
from bloodcell_jax.data.launch_cache import cached_duplicate_groups, cached_sha256, known_duplicate_groups
from bloodcell_jax.data.loading import load_data
from bloodcell_jax.data.sampling import sampler_of
from bloodcell_jax.data.splits import cuts_anything, k_folds, split_dataset
from bloodcell_jax.devices.host import free_host_memory
from bloodcell_jax.devices.parallel import DataParallel, create_parallel
from bloodcell_jax.errors import UsageError
from bloodcell_jax.models.registry import build_model, count_parameters, param_shapes
from bloodcell_jax.run.cached_features import check_cacheable, check_trainable
from bloodcell_jax.run.feed import choose_streaming
from bloodcell_jax.run.finished_model import complete_model
from bloodcell_jax.run.run import Run
from bloodcell_jax.train.stages import plan_stages
from bloodcell_jax.weights import WeightsInfo, read_weights_info
from bloodcell_jax.weights.info import IMAGENET_MEAN, IMAGENET_STD
from bloodcell_jax.weights.model_file import record_of_start

logger = logging.getLogger(__name__)


def create_run(config: Config, dataset: Dataset | None = None, devices: Sequence[Any] | None = None) -> Run:
    """Load the data and lay the run out; nothing of the run is written.

    Args:
      config: what to do.
      dataset: if given, takes the place of what `config.data` names.
      devices: those to run on; by default all there are.

    Raises:
      UsageError, DataError: as the parts say.
    """
    # Before the data: a misspelt variant or file should not wait for them.
    augmentation, parallel = check_without_data(config, devices)
    weights, variant = config.model.weights, config.model.variant
    weights_info = _read_start(weights, variant) if weights is not None else None
    dataset = load_data(config.data) if dataset is None else dataset
    check_learnable(dataset)
    config = resolve(config, dataset, weights_info)
    model = build_model(config.model)
    shapes = param_shapes(model, config.data.image_size)
    streams = choose_streaming(config.data, dataset, count_parameters(shapes))
    if not streams:
        dataset = dataset.in_memory()
    data_hash = cached_sha256(dataset)
    splits = cut_splits(dataset, data_hash, config)
    sampler = sampler_of(config, dataset, splits["train"])
    stages = plan_stages(config, shapes, epoch_size=sampler.epoch_size)
    check_trainable(model, stages)
    epochs = math.ceil(stages[-1].stop * config.train.batch_size / sampler.epoch_size)
    return Run(
        config=config,
        dataset=dataset,
        data_hash=data_hash,
        splits=splits,
        sampler=replace(sampler, epochs=epochs),
        augmentation=augmentation,
        model=model,
        param_shapes=shapes,
        stages=stages,
        parallel=parallel,
        weights_info=weights_info,
        streams=streams,
    )


def check_without_data(config: Config, devices: Sequence[Any] | None = None) -> tuple[Augmentation, DataParallel]:
    """Check all of a configuration that needs no data, and return what a run makes of it on some devices, or on all.

    Raises:
      UsageError: as the parts say.
    """
    validate(config)
    check_all_read(config)
    augmentation = create_augmentation(config)
    parallel = create_parallel(config.train.backend, config.train.batch_size, devices)
    check_backend(config.train)
    check_cacheable(config, augmentation)
    check_blocks(augmentation, config.train.batch_size, parallel.mesh.size)
    check_parts(config.train, parallel.mesh.size)
    build_model(replace(config.model, num_classes=2))
    return augmentation, parallel


def _read_start(weights: str, variant: str) -> WeightsInfo:
    """Return the info of the weights that a run starts from: a file, a published name, or a finished workdir."""
    if jax.process_count() == 1:  # Orbax restores a checkpoint in all processes or in none.
        complete_model(weights)
    return read_weights_info(weights, variant)


def create_augmentation(config: Config) -> Augmentation:
    """Return the augmentation of training images.

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
    """Check that every device holds whole blocks if choices are made inside them.

    Raises:
      UsageError: it does not; names the nearest batch sizes that fit.
    """
    block, per_device = augmentation.block, batch_size // devices
    if not augmentation.needs_blocks or per_device % block == 0:
        return
    lower = per_device // block * block * devices
    nearest = f"{lower} or {lower + block * devices}" if lower else f"{block * devices}"
    raise UsageError(
        f"config.train.batch_size={batch_size}: {per_device} on each of {devices} devices is no multiple of "
        f"config.augment.block={block}, as this augmentation needs; the nearest is {nearest}, or set another block"
    )


def check_backend(config: TrainConfig) -> None:
    """Check that the backend can do what is asked of the state.

    Raises:
      UsageError: it cannot; names both fields.
    """
    if config.shard_state != "none" and config.backend != "jit":
        raise UsageError(
            f"config.train.shard_state={config.shard_state}: config.train.backend={config.backend} copies the state to "
            "each device; set --config.train.backend=jit"
        )


def check_parts(config: TrainConfig, devices: int) -> None:
    """Check that the parts of each device's share of a batch are equal.

    Raises:
      UsageError: they are not; names the nearest batch sizes that fit.
    """
    unit, batch_size = devices * config.accumulate, config.batch_size
    if batch_size % unit == 0:
        return
    lower = batch_size // unit * unit
    raise UsageError(
        f"config.train.accumulate={config.accumulate}: does not divide the {batch_size // devices} examples of each of "
        f"{devices} devices; set another, or config.train.batch_size={f'{lower} or ' if lower else ''}{lower + unit}"
    )


def cut_splits(dataset: Dataset, data_hash: str, config: Config) -> dict[str, np.ndarray]:
    """Return the splits of a run; no cut goes through a group of the dataset, and test never enters a fold.

    Duplicates are searched for only if a cut must keep them together.

    Raises:
      UsageError: looking for them needs more memory than there is.
    """
    groups = None
    if config.data.group_duplicates and cuts_anything(dataset, config.data):
        unread = dataset.images.nbytes * (not isinstance(dataset.images, np.ndarray))
        if unread > free_host_memory() / 2 and known_duplicate_groups(dataset, data_hash) is None:
            raise UsageError(
                f"config.data.group_duplicates: {dataset.source} leaves splits to be cut, and what shows the same cell "
                f"is found by comparing all {unread / 1e9:.0f} GB of images in memory, and not enough is free; "
                "set it to false, or prepare the source with splits of its own"
            )
        groups = cached_duplicate_groups(dataset, data_hash)
    data = config.data
    splits = split_dataset(dataset, data.splits, seed=config.split_seed, groups=groups)
    if data.folds is None:
        return splits
    pool = np.sort(np.concatenate([splits["train"], splits["val"]]))
    train, val = k_folds(dataset, pool, data.folds, seed=config.split_seed, groups=groups)[data.fold]
    return splits | {"train": train, "val": val}


def resolve(config: Config, dataset: Dataset, weights_info: WeightsInfo | None) -> Config:
    """Return a copy in which the data and the weights fill in what is unset.

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
        _say_other_size(config, weights_info)
        _check_scale(config, dataset, weights_info)
    config.model = replace(
        config.model,
        num_classes=len(dataset.class_names),
        mean=config.model.mean or IMAGENET_MEAN,
        std=config.model.std or IMAGENET_STD,
    )
    return config


def _say_other_size(config: Config, info: WeightsInfo) -> None:
    """Warn if a classifier of named classes is to see its images in another size than it learned from."""
    asked, trained_with = config.data.image_size, info.input_size
    if info.class_names and asked != trained_with:
        logger.warning(
            "%s: learned from images of %d px, and sees %d px now, where a cell has another size; "
            "--config.data.image_size=%d keeps what it knows",
            config.model.weights,
            trained_with,
            asked,
            trained_with,
        )


def _check_scale(config: Config, dataset: Dataset, info: WeightsInfo) -> None:
    """Check that the scale of files is known if the run's start learned from files of known scale.

    Raises:
      UsageError: it is not. A crop then has other pixels, and shows cells in another size.
    """
    if config.data.microns_per_pixel is not None or dataset.file_geometry is None or not info.class_names:
        return
    start = record_of_start(str(config.model.weights))
    scale = None if start is None else start[1].config.data.microns_per_pixel
    if scale is not None:
        raise UsageError(
            f"config.data.microns_per_pixel: missing; {config.model.weights} learned from files of known scale "
            f"({scale}), so give that of these files"
        )


def _resolve_weights(config: ModelConfig, info: WeightsInfo) -> ModelConfig:
    """Return the configuration in which unset fields have the values that its weights were trained with."""
    # A published network may be given another stem for small images; a run's network keeps the one it was trained with.
    filled: dict[str, Any] = {} if config.stem_stride != ModelConfig.stem_stride else {"stem_stride": info.stem_stride}
    for name in ("variant", "norm_eps", "activation", "mean", "std"):
        asked, trained_with = getattr(config, name), getattr(info, name)
        # ImageNet's mean and std are an assumption for an unknown file; the configuration may correct it.
        unknown = not info.licence and not info.class_names
        assumed = unknown and trained_with in (IMAGENET_MEAN, IMAGENET_STD)
        if asked and trained_with and asked != trained_with and not assumed:
            raise UsageError(
                f"config.model.{name}={asked}: {config.weights} was trained with {trained_with}; set that"
                + (", or leave it unset" if name != "variant" else "")
            )
        filled[name] = asked or trained_with
    return replace(config, **filled)
