"""How a step gets its pictures: from the whole set on every device, or in batches that are read ahead of it.

Both show a step the same examples, to the bit.
"""

import contextlib
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import numpy as np

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.host_memory import free_host_memory
from bloodcell_jax.data.sampling import Sampler
from bloodcell_jax.data.streaming import default_workers, open_stream
from bloodcell_jax.train.distributed import any_process
from bloodcell_jax.train.feature_cache import FeatureCache
from bloodcell_jax.train.stages import Stage

if TYPE_CHECKING:
    from bloodcell_jax.train.setup import Run

logger = logging.getLogger(__name__)

# The pictures may take this part of what is free; the rest is for the step: activations, and batches on their way.
_PART_FOR_PICTURES = 0.5
# The parameter, its gradient, two moments and an average, in float32.
_STATE_BYTES_PER_PARAMETER = 20


def choose_streaming(config: DataConfig, dataset: Dataset, parameters: int) -> bool:
    """Return whether the pictures are to be streamed, and log why where nobody said.

    They are resident where they fit, beside the state, into half of the free memory of every device and of the host,
    which holds them as well. All processes of a run get the same answer.

    Args:
      config: its `feed` decides, unless it is auto.
      parameters: how many the network has.
    """
    if config.feed != "auto":
        return config.feed == "streaming"
    pictures, state = dataset.images.nbytes, _STATE_BYTES_PER_PARAMETER * parameters
    limits = [stats for device in jax.local_devices() if "bytes_limit" in (stats := device.memory_stats() or {})]
    # Where a device tells no limit it is the host, which then holds a copy for it beside its own.
    copies = len(jax.local_devices()) - len(limits) + (not isinstance(dataset.images, np.ndarray))
    free = {"the host": free_host_memory()}
    if limits:
        free["a device"] = min(stats["bytes_limit"] - stats.get("bytes_in_use", 0) for stats in limits) - state
    needed = {"the host": copies * pictures, "a device": pictures}
    streams = any_process(any(needed[name] > _PART_FOR_PICTURES * size for name, size in free.items()))
    logger.info(
        "data.feed=auto: %s, %s of pictures, free: %s",
        "streaming" if streams else "resident",
        _size(pictures),
        ", ".join(f"{_size(size)} on {name}" for name, size in free.items()),
    )
    return streams


def _size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if abs(size) >= 1e8 else f"{size / 1e6:,.1f} MB"


@dataclass(frozen=True)
class TrainingPlan:
    """The examples that one process feeds to each of some steps: a function of the seed and the step."""

    sampler: Sampler
    batch_size: int
    rows: slice
    steps: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, number: int) -> np.ndarray:
        start = int(self.steps[number]) * self.batch_size
        return self.sampler.indices(start + self.rows.start, start + self.rows.stop)


def place_data(run: "Run") -> dict[str, jax.Array]:
    """Return the whole dataset on every device, or nothing where it is streamed: what a step takes as `data`."""
    if run.streams:
        return {}
    return run.parallel.place_state({"images": run.dataset.images, "labels": run.dataset.labels})


def resident_batch(run: "Run", step: int) -> dict[str, jax.Array]:
    """Return what a step takes as `batch` where the whole set is on every device."""
    return run.parallel.shard_batch(_without(run.plan_batch(step), "labels"))


@contextlib.contextmanager
def open_batches(run: "Run", first_step: int) -> Iterator[Iterator[dict[str, jax.Array]]]:
    """Open what steps take as `batch`, step by step from `first_step` on, on the devices.

    It holds the global slots, and the example indices where the set is resident; the pictures and their labels, read
    and placed two steps ahead, where it is streamed; rows of features in stages that keep these.

    Raises, while it is iterated:
      DataError, MachineError: as `open_stream` says.
    """
    with _open_pictures(run, first_step) as pictures:
        left = ((stage, range(max(first_step, stage.start), stage.stop)) for stage in run.stages)
        yield itertools.chain.from_iterable(_stage_batches(run, stage, steps, pictures) for stage, steps in left)


def _stage_batches(
    run: "Run", stage: Stage, steps: range, pictures: Iterator[dict[str, jax.Array]]
) -> Iterator[dict[str, jax.Array]]:
    if stage.config.cached_views is None:
        return itertools.islice(pictures, len(steps))
    cache = FeatureCache.of_stage(run, stage)
    return (cache.batch(run, step) for step in steps)


@contextlib.contextmanager
def _open_pictures(run: "Run", first_step: int) -> Iterator[Iterator[dict[str, jax.Array]]]:
    """Open the batches of those steps from `first_step` on that are given pictures."""
    on_pictures = [np.arange(stage.start, stage.stop) for stage in run.stages if stage.config.cached_views is None]
    steps = np.concatenate([np.arange(0), *on_pictures])
    start = int(np.searchsorted(steps, first_step))
    if not run.streams or start == len(steps):
        yield (resident_batch(run, int(step)) for step in steps[start:])
        return
    plan_batch, shard_batch = run.plan_batch, run.parallel.shard_batch
    size = run.config.train.batch_size
    plan = TrainingPlan(run.sampler, size, run.parallel.local_rows(size), steps)

    def place(number: int, images: np.ndarray) -> dict[str, jax.Array]:
        return shard_batch(_without(plan_batch(int(steps[number])), "indices") | {"images": images})

    workers = run.config.data.workers
    workers = default_workers() if workers is None else workers
    with open_stream(run.dataset.images, plan, workers=workers, place=place, start=start) as batches:
        yield batches


def _without(batch: dict, name: str) -> dict:
    return {key: value for key, value in batch.items() if key != name}
