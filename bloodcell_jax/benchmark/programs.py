"""The programs of a run on random pixels: the training step, inference, augmentation, and the input."""

import copy
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bloodcell_jax.config import Config, DataConfig
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.evaluate.evaluator import Evaluator
from bloodcell_jax.run.compilation import compile_stage
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.inputs import RunInputs
from bloodcell_jax.run.run import Run
from bloodcell_jax.train.stages import image_size_of
from bloodcell_jax.train.step import Batch, Metrics, training_batch

_DEFAULT_CLASSES = 8
_EXAMPLES_OF_CLASS = 10


def random_examples(config: Config, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random pixels, uint8 [count, h, w, 3], and labels, int32 [count].

    There are as many classes as the configuration names, or 8 if it names none.
    """
    size = config.data.image_size
    images = np.random.default_rng(config.seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return images, np.arange(count, dtype=np.int32) % _count_classes(config)


def _count_classes(config: Config) -> int:
    return config.model.num_classes or len(config.data.class_names) or _DEFAULT_CLASSES


def measured_config(config: Config) -> Config:
    """Return the configuration to measure: the last stage at the size of its images, from random weights.

    The stage trains on images even if the configuration caches features, because the backbone is to be measured too.
    """
    config = copy.deepcopy(config)
    # The names of the classes go with the data.
    config.model = replace(config.model, weights=None, num_classes=_count_classes(config))
    image_size = image_size_of(config, config.stages[-1])
    config.stages = [replace(config.stages[-1], cached_views=None, image_size=None)]
    config.data = DataConfig(source="random pixels", image_size=image_size, group_duplicates=False, feed="resident")
    return config


def random_run(config: Config) -> Run:
    """Return the run to measure."""
    # More images would change nothing: they lie on the device, and a step gathers its batch by index. Each split needs
    # some of each class.
    count = max(2 * config.train.batch_size + 256, _EXAMPLES_OF_CLASS * _count_classes(config))
    config = measured_config(config)
    images, labels = random_examples(config, count)
    names = tuple(f"class {i}" for i in range(_count_classes(config)))
    dataset = Dataset(images, labels, names, ids=tuple(map(str, range(count))), source="random pixels")
    return create_run(config, dataset)


@dataclass(frozen=True)
class Compiled:
    """A compiled program and the cost of compiling it.

    Attributes:
      program: the program.
      seconds: time of tracing, lowering and compiling without a cache.
    """

    program: jax.stages.Compiled
    seconds: float

    @property
    def peak_bytes(self) -> int | None:
        """Bytes of arguments, results and temporaries on one device, donated buffers once; None if unknown."""
        memory = self.program.memory_analysis()
        if memory is None:
            return None
        whole = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        return whole - memory.alias_size_in_bytes

    @property
    def flops(self) -> float | None:
        """The compiler's count of floating-point operations on one device; None if unknown."""
        return (self.program.cost_analysis() or {}).get("flops")


def _compile(lower: Callable, *arguments: Any) -> Compiled:
    start = time.perf_counter()
    program = lower(*arguments)
    return Compiled(program, time.perf_counter() - start)


class TrainingStep:
    """The step of the run's stage, called with a new batch each time as the loop does."""

    def __init__(self, run: Run):
        self._run, stage = run, run.stages[0]
        stage_input = RunInputs(run).of_stage(stage)
        self._state, self._seed = run.initial_state(), run.place_seed()
        self._data = stage_input.place_data(self._state.params)
        # Nothing has to be closed, because the pixels lie on the devices.
        self._batches = endless_batches(run)
        self.compiled = _compile(compile_stage, run, stage, stage_input)

    def __call__(self) -> Metrics:
        """Run one step and return its metrics."""
        self._state, metrics = self.compiled.program(self._state, self._data, next(self._batches), self._seed)
        return metrics

    @property
    def trees(self) -> dict[str, Any]:
        """The parts of the state as a checkpoint stores them."""
        return self._run.parallel.global_view(self._state.to_trees())


def endless_batches(run: Run) -> Iterator[Batch]:
    """Yield the batches of the run's stage, and start again after the last one."""
    stage_input = RunInputs(run).of_stage(run.stages[0])
    while True:
        with stage_input.open_batches(0) as batches:
            yield from batches


class Inference:
    """The forward pass of one batch as in an evaluation."""

    def __init__(self, run: Run):
        evaluator = Evaluator(
            run.model,
            mean=run.config.model.mean,
            std=run.config.model.std,
            batch_size=run.config.train.batch_size,
            parallel=run.parallel,
        )
        self.batch_size = evaluator.batch_size
        parallel = run.parallel
        params = parallel.global_view(run.initial_state().params)
        self._arguments = params, parallel.global_rows(run.dataset.images[: self.batch_size])
        self.compiled = _compile(lambda *arguments: evaluator.forward.lower(*arguments).compile(), *self._arguments)

    def __call__(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return the arrays of `Outputs`."""
        return self.compiled.program(*self._arguments)


class BatchAugmentation:
    """The first part of a step on one device: it gathers and augments the device's share of a batch."""

    def __init__(self, run: Run):
        device = jax.devices()[0]
        rows = np.arange(run.config.train.batch_size // run.parallel.mesh.size, dtype=np.int32)
        data = RunInputs(run).whole_dataset
        self._arguments = jax.device_put(
            (data, {"indices": rows, "slots": rows}, jnp.uint32(run.config.seed), jnp.int32(0)), device
        )
        augment = functools.partial(
            training_batch,
            image_size=run.config.data.image_size,
            augmentation=run.augmentation,
            num_classes=run.model.num_classes,
            label_smoothing=run.config.train.label_smoothing,
        )
        self.compiled = _compile(lambda *arguments: jax.jit(augment).lower(*arguments).compile(), *self._arguments)

    def __call__(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return images, targets and keys as `training_batch` does."""
        return self.compiled.program(*self._arguments)
