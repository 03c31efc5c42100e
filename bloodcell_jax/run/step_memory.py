"""Whether a compiled step fits into the memory of the devices, before it runs; and if not, which batch does."""

from typing import Any

import jax

from bloodcell_jax.devices.host import free_host_memory
from bloodcell_jax.errors import MemoryFullError
from bloodcell_jax.run.compilation import compile_stage
from bloodcell_jax.run.inputs import RunInputs
from bloodcell_jax.run.largest_batch import largest_batch
from bloodcell_jax.run.run import Run
from bloodcell_jax.train.stages import TrainingStage


def check_memory(run: Run, stage: TrainingStage, step: Any) -> None:
    """Check that a compiled step fits beside what lies on the devices: state, images, features.

    Raises:
      MemoryFullError: it does not; names the largest batch that does, by the memory analysis of its compiled step.
    """
    needed, free = _bytes_of(step), _free_bytes()
    if needed is None or needed <= free:
        return
    batch_size = _largest_that_fits(run, stage, needed, free)
    advice = f"config.train.batch_size={batch_size} fits in a new run" if batch_size else "no batch fits"
    remat = ", or --config.model.remat" if hasattr(run.model, "remat") else ""
    raise MemoryFullError(
        f"stage {stage.name}: a step with a batch of {run.config.train.batch_size} needs {needed / 1e9:,.2f} GB "
        f"on each device, where {free / 1e9:,.2f} are free; {advice}. More devices or --config.train.accumulate"
        f"{remat} lower it too"
    )


def _bytes_of(step: Any) -> int | None:
    """Return what a compiled step takes on each device besides its arguments; None if it is not compiled yet."""
    memory = step.memory_analysis() if hasattr(step, "memory_analysis") else None
    if memory is None:
        return None
    return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


def _free_bytes() -> int:
    """Return the memory that is free on each device of this process; virtual devices share the host's."""
    devices = jax.local_devices()
    stats = [device.memory_stats() for device in devices]
    if all(stat and "bytes_limit" in stat for stat in stats):
        return min(stat["bytes_limit"] - stat["bytes_in_use"] for stat in stats)
    return free_host_memory() // len(devices)


def _largest_that_fits(run: Run, stage: TrainingStage, needed: int, free: int) -> int:
    """Return the largest batch of which the compiled step fits; 0: none does."""
    size = run.config.train.batch_size

    def needed_by(batch_size: int) -> int:
        if batch_size == size:
            return needed
        smaller = run.with_batch_size(batch_size)
        return _bytes_of(compile_stage(smaller, stage, RunInputs(smaller).of_stage(stage))) or 0

    return largest_batch(needed_by, free, start=size, unit=run.batch_unit)
