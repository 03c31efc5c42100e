"""Whole programs as a run executes them, on random pixels: the training step, inference, augmentation, the input."""

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
from bloodcell_jax.train.step import Batch, training_batch

_DEFAULT_CLASSES = 8


def random_dataset(config: Config, count: int) -> Dataset:
    """Return `count` images of random pixels in as many classes as the configuration names, else 8."""
    classes = config.model.num_classes or len(config.data.class_names) or _DEFAULT_CLASSES
    size = config.data.image_size
    images = np.random.default_rng(config.seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    names = tuple(f"class {i}" for i in range(classes))
    return Dataset(
        images=images,
        labels=np.arange(count, dtype=np.int32) % classes,
        class_names=names,
        ids=tuple(map(str, range(count))),
        source="random pixels",
    )


def measured_config(config: Config) -> Config:
    """Return the configuration of what is measured: the last stage, from random weights, nothing read from a source.

    Its steps are those on images: without a backbone in them there would be nothing to measure.
    """
    config = copy.deepcopy(config)
    config.stages = [replace(config.stages[-1], cached_views=None)]
    config.data = DataConfig(
        source="random pixels", image_size=config.data.image_size, group_duplicates=False, feed="resident"
    )
    config.model = replace(config.model, weights=None)
    return config


def random_run(config: Config) -> Run:
    """Return the run that is measured."""
    # Beyond two batches nothing changes: they lie on the device and are gathered by index.
    count = 2 * config.train.batch_size + 256
    return create_run(measured_config(config), random_dataset(config, count))


@dataclass(frozen=True)
class Compiled:
    """A compiled program and what it cost to compile.

    Attributes:
      program: jax.stages.Compiled.
      seconds: of tracing, lowering and compiling, no cache used.
    """

    program: Any
    seconds: float

    @property
    def peak_bytes(self) -> int:
        """What the program needs on one device: arguments, results and temporaries, donated ones once."""
        memory = self.program.memory_analysis()
        whole = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        return whole - memory.alias_size_in_bytes

    @property
    def flops(self) -> float | None:
        """The compiler's own count of floating-point operations on one device; None where it has none."""
        return (self.program.cost_analysis() or {}).get("flops")


def _compile(lower: Callable, *arguments: Any) -> Compiled:
    start = time.perf_counter()
    program = lower(*arguments)
    return Compiled(program, time.perf_counter() - start)


class TrainingStep:
    """The step of the run's stage with its batches, as the loop calls it."""

    def __init__(self, run: Run):
        self._run, stage = run, run.stages[0]
        stage_input = RunInputs(run).of_stage(stage)
        self._state, self._seed = run.initial_state(), run.place_seed()
        self._data = stage_input.place_data(self._state.params)
        # Random pixels lie on the devices: nothing is left open.
        self._batches = batches_for_ever(run)
        self.compiled = _compile(compile_stage, run, stage, stage_input)

    def __call__(self) -> dict[str, jax.Array]:
        """Run one step; returns its metrics."""
        self._state, metrics = self.compiled.program(self._state, self._data, next(self._batches), self._seed)
        return metrics

    @property
    def trees(self) -> dict[str, Any]:
        """The state's parts as a checkpoint stores them."""
        return self._run.parallel.global_view(self._state.to_trees())


def batches_for_ever(run: Run) -> Iterator[Batch]:
    """Yield what the steps of the run's stage take as `batch`, one after the other."""
    stage_input = RunInputs(run).of_stage(run.stages[0])
    while True:
        with stage_input.open_batches(0) as batches:
            yield from batches


class Inference:
    """Class probabilities of one batch, as evaluation computes them."""

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
        self.compiled = _compile(
            lambda *arguments: evaluator.probabilities.lower(*arguments).compile(), *self._arguments
        )

    def __call__(self) -> jax.Array:
        """Return probabilities [batch, classes]."""
        return self.compiled.program(*self._arguments)


class BatchAugmentation:
    """Gathering and augmenting one device's share of a batch, as the step begins."""

    def __init__(self, run: Run):
        device = jax.devices()[0]
        rows = np.arange(run.config.train.batch_size // run.parallel.mesh.size, dtype=np.int32)
        data = {"images": run.dataset.images, "labels": run.dataset.labels}
        self._arguments = jax.device_put(
            (data, {"indices": rows, "slots": rows}, jnp.uint32(run.config.seed), jnp.int32(0)), device
        )
        prepare = functools.partial(
            training_batch,
            augmentation=run.augmentation,
            num_classes=run.model.num_classes,
            label_smoothing=run.config.train.label_smoothing,
        )
        self.compiled = _compile(lambda *arguments: jax.jit(prepare).lower(*arguments).compile(), *self._arguments)

    def __call__(self) -> tuple[jax.Array, ...]:
        """Return images, targets and keys."""
        return self.compiled.program(*self._arguments)
