"""How the steps of a stage get their examples: resident images, streamed images, or features of a frozen backbone.

All show a step the same examples, to the bit.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import jax
import numpy as np

from bloodcell_jax.data.resident_images import ResidentImages
from bloodcell_jax.data.sampling import Sampler
from bloodcell_jax.data.streaming import default_workers, open_stream
from bloodcell_jax.evaluate.image_batches import Images
from bloodcell_jax.models.network import Params
from bloodcell_jax.run.cached_features import FeatureCache
from bloodcell_jax.run.run import Run
from bloodcell_jax.train.stages import TrainingStage
from bloodcell_jax.train.step import Batch, Data, StepInput, features_input, images_input

# Is told how many of how many rows of a long computation are done; what it raises ends the computation.
OnProgress = Callable[[int, int], None]


class StageInput(Protocol):
    """What the steps of one stage are fed with.

    Attributes:
      note: one line on what is computed before the first step; empty if nothing is.
      step_input: how the step reads `data` and `batch`.
    """

    @property
    def note(self) -> str: ...

    @property
    def step_input(self) -> StepInput: ...

    def shapes(self) -> tuple[Data, Batch]:
        """Return what steps take as `data` and `batch`, as shapes."""
        ...

    def place_data(self, params: Params, on_progress: OnProgress = lambda done, total: None) -> Data:
        """Return what every step takes as `data`, on the devices; `params` are those before the stage's next step."""
        ...

    def open_batches(self, first_step: int) -> AbstractContextManager[Iterator[Batch]]:
        """Open what the steps from `first_step` to the stage's last take as `batch`, on the devices.

        Raises, while it is iterated:
          DataError, MachineError: as `open_stream` says.
        """
        ...


class RunInputs:
    """The inputs of a run's stages. They share the images on the devices, which evaluation uses as well."""

    def __init__(self, run: Run):
        self._run = run

    def of_stage(self, stage: TrainingStage) -> StageInput:
        """Return the input of a stage: the one place where its kind is chosen."""
        if stage.config.cached_views is not None:
            return FeatureInput(self._run, stage, self)
        if self._run.streams:
            return StreamedInput(self._run, stage)
        return ResidentInput(self._run, stage, self)

    @cached_property
    def placed(self) -> Data:
        """The whole dataset on every device: images and labels."""
        return self._run.parallel.place_state(self.whole_dataset)

    @property
    def whole_dataset(self) -> Data:
        """The whole dataset on the host, as the devices hold it."""
        dataset = self._run.dataset
        return {"images": ResidentImages.of(dataset.image_array()), "labels": dataset.labels}

    @property
    def images(self) -> Images:
        """All images, as passes over them take them."""
        return self._run.dataset.images if self._run.streams else self._run.parallel.global_view(self.placed["images"])


@dataclass(frozen=True)
class ResidentInput:
    """All images lie on every device; a batch points at them."""

    run: Run
    stage: TrainingStage
    inputs: RunInputs
    note = ""

    @property
    def step_input(self) -> StepInput:
        return _images_input(self.run, self.stage)

    def shapes(self) -> tuple[Data, Batch]:
        parallel = self.run.parallel
        return parallel.state_shapes(self.inputs.whole_dataset), parallel.batch_shapes(self._rows(self.stage.start))

    def place_data(self, params: Params, on_progress: OnProgress = lambda done, total: None) -> Data:
        return self.inputs.placed

    @contextlib.contextmanager
    def open_batches(self, first_step: int) -> Iterator[Iterator[Batch]]:
        yield (self.run.parallel.shard_batch(self._rows(step)) for step in range(first_step, self.stage.stop))

    def _rows(self, step: int) -> dict[str, np.ndarray]:
        return _without(self.run.plan_batch(step), "labels")


@dataclass(frozen=True)
class StreamedInput:
    """Batches of images are read, decoded and placed two steps ahead of their use."""

    run: Run
    stage: TrainingStage
    note = ""

    @property
    def step_input(self) -> StepInput:
        return _images_input(self.run, self.stage)

    def shapes(self) -> tuple[Data, Batch]:
        rows = self._rows(self.stage.start)
        size = self.run.config.data.image_size
        images = jax.ShapeDtypeStruct((len(rows["slots"]), size, size, 3), np.uint8)
        return {}, self.run.parallel.batch_shapes(rows | {"images": images})

    def place_data(self, params: Params, on_progress: OnProgress = lambda done, total: None) -> Data:
        return {}

    @contextlib.contextmanager
    def open_batches(self, first_step: int) -> Iterator[Iterator[Batch]]:
        run, size = self.run, self.run.config.train.batch_size
        plan = StreamPlan(run.sampler, size, run.parallel.local_rows(size), range(self.stage.start, self.stage.stop))

        def place(number: int, images: np.ndarray) -> Batch:
            return run.parallel.shard_batch(self._rows(plan.steps[number]) | {"images": images})

        workers = default_workers() if run.config.data.workers is None else run.config.data.workers
        start = first_step - self.stage.start
        with open_stream(run.dataset.images, plan, workers=workers, place=place, start=start) as batches:
            yield batches

    def _rows(self, step: int) -> dict[str, Any]:
        return _without(self.run.plan_batch(step), "indices")


@dataclass(frozen=True)
class FeatureInput:
    """The stage trains what lies behind a frozen backbone; the backbone's features are computed once, before it."""

    run: Run
    stage: TrainingStage
    inputs: RunInputs

    @cached_property
    def cache(self) -> FeatureCache:
        """Which features are kept."""
        return FeatureCache.of_stage(self.run, self.stage)

    @property
    def note(self) -> str:
        return str(self.cache)

    @property
    def step_input(self) -> StepInput:
        return features_input(self.run.model, label_smoothing=self.run.config.train.label_smoothing)

    def shapes(self) -> tuple[Data, Batch]:
        features = jax.ShapeDtypeStruct(self.cache.shape, np.float32)
        parallel = self.run.parallel
        return parallel.state_shapes({"features": features}), parallel.batch_shapes(self._rows(self.stage.start))

    def place_data(self, params: Params, on_progress: OnProgress = lambda done, total: None) -> Data:
        params = self.run.parallel.replicate(self.run.parallel.global_view(params))
        features = self.cache.compute(self.run, params, self.inputs.images, on_progress)
        return self.run.parallel.place_state({"features": features})

    @contextlib.contextmanager
    def open_batches(self, first_step: int) -> Iterator[Iterator[Batch]]:
        yield (self.run.parallel.shard_batch(self._rows(step)) for step in range(first_step, self.stage.stop))

    def _rows(self, step: int) -> dict[str, np.ndarray]:
        planned, sampler = self.run.plan_batch(step), self.run.sampler
        positions = step * self.run.config.train.batch_size + planned["slots"].astype(np.int64)
        rows = self.cache.rows(planned["indices"], positions // sampler.epoch_size)
        return _without(planned, "indices") | {"rows": rows}


@dataclass(frozen=True)
class StreamPlan:
    """The examples that one process feeds to each step of a stage; it is sent to the processes that read."""

    sampler: Sampler
    batch_size: int
    rows: slice
    steps: range

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, number: int) -> np.ndarray:
        start = self.steps[number] * self.batch_size
        return self.sampler.indices(start + self.rows.start, start + self.rows.stop)


def _images_input(run: Run, stage: TrainingStage) -> StepInput:
    config = run.config
    return images_input(
        run.model,
        run.augmentation,
        image_size=stage.image_size,
        mean=config.model.mean,
        std=config.model.std,
        label_smoothing=config.train.label_smoothing,
    )


def _without(batch: dict, name: str) -> dict:
    return {key: value for key, value in batch.items() if key != name}
