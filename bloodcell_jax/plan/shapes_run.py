"""A run whose images are shapes: enough to compile its steps, and no example is needed."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from bloodcell_jax.config import Config, DataConfig
from bloodcell_jax.data.dataset import Dataset, index_ids
from bloodcell_jax.models.registry import count_parameters, create_model, param_shapes
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.feed import free_beside_state, leaves_room
from bloodcell_jax.run.run import Run

_CLASSES = 8


def create_shapes_run(config: Config, examples: int, devices: list[Any], memory: int) -> Run:
    """Return the run of a configuration on `examples` images that are not there, for devices with so much memory.

    It starts from random weights, since shapes are all that a program depends on, and feeds its steps as a run on these
    devices would.

    Raises:
      UsageError: the configuration cannot be used, or the devices do not divide the batch.
    """
    size, classes = config.data.image_size, config.model.num_classes or len(config.data.class_names) or _CLASSES
    # One byte stands for all of them.
    images = np.broadcast_to(np.zeros((), np.uint8), (examples, size, size, 3))
    labels = np.arange(examples, dtype=np.int32) % classes
    dataset = Dataset(images, labels, index_ids(classes), index_ids(examples), "shapes", known_sha256="shapes")
    return create_run(_without_files(config, dataset, memory), dataset, devices)


def _without_files(config: Config, dataset: Dataset, memory: int) -> Config:
    config = copy.deepcopy(config)
    feed = config.data.feed
    if feed == "auto":
        model = create_model(config.model.variant, len(dataset.class_names))
        parameters = count_parameters(param_shapes(model, config.data.image_size))
        fits = leaves_room(dataset.images.nbytes, free_beside_state(memory, parameters))
        feed = "resident" if fits else "streaming"
    config.data = DataConfig(
        source=dataset.source,
        image_size=config.data.image_size,
        # Shapes have no groups, and the program is that of any order.
        sampler="natural" if config.data.sampler == "groups" else config.data.sampler,
        samples_per_class=config.data.samples_per_class,
        sampler_power=config.data.sampler_power,
        group_duplicates=False,
        feed=feed,
    )
    config.model = replace(config.model, weights=None)
    # Under pmap a step is the same program (docs/decisions.md), and pmap takes no devices that are not there.
    config.train = replace(config.train, backend="jit")
    return config
