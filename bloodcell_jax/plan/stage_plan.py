"""What is said of a stage on one topology: what its compiled step needs, and the time that its work allows."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from bloodcell_jax.models.flops import forward_flops
from bloodcell_jax.plan.accelerators import Gpu, Tpu
from bloodcell_jax.plan.compiled_step import CompiledStep, compile_for
from bloodcell_jax.plan.costliest import costliest
from bloodcell_jax.plan.program import Operation, collectives
from bloodcell_jax.run.largest_batch import largest_batch
from bloodcell_jax.run.run import Run
from bloodcell_jax.train.stages import TrainingStage

MOST_OPERATIONS = 10
# JAX takes this part of a GPU's memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise, and XLA:TPU keeps the rest
# of a TPU's for itself: a v5e has 16 GiB, and the compiler refuses what needs more than 15.75.
_USABLE = {Gpu: 0.75, Tpu: 15.75 / 16}

# Of a kernel on a GPU, however little it does: an assumption, not a published figure.
_SHORTEST_KERNEL = 2e-6

Say = Callable[[str], None]
# Changes of a configuration, and the run with them.
SmallerRuns = Callable[[], Iterable[tuple[dict[str, Any], Run]]]


def plan_stage(
    run: Run, stage: TrainingStage, accelerator: Tpu | Gpu, *, smaller_runs: SmallerRuns | None, say: Say
) -> dict:
    """Return the plan of a stage, ready for JSON.

    Args:
      run: on the devices of a topology.
      smaller_runs: runs that need less memory, to find out which of them fits if this one does not. None: neither that
        nor the largest batch is looked for, each of which compiles about four more programs.
      say: is told what is being done.
    """
    limit, batch_size = usable_memory(accelerator), run.config.train.batch_size
    step = _compile(run, stage, say)
    plan = {
        "stage": stage.name,
        "image_size": stage.image_size,
        "compile_s": step.seconds,
        "memory": {
            "arguments": step.memory.arguments,
            "temporaries": step.memory.temporaries,
            "program": step.memory.program,
            "peak": step.memory.peak,
            "usable": limit,
            "fits": step.memory.peak <= limit,
        },
        "largest_batch": None,
        "fits_with": None,
        "operations": sum(operation.times for operation in step.operations),
        "collectives": collectives(step.operations),
        "costliest": costliest(step.operations, _seconds_of(accelerator), MOST_OPERATIONS),
        "estimate": _estimate(run, stage, step, accelerator),
    }
    if smaller_runs is not None:

        def needed(size: int) -> int:
            return (step if size == batch_size else _compile(run.with_batch_size(size), stage, say)).memory.peak

        plan["largest_batch"] = largest_batch(needed, limit, start=batch_size, unit=run.batch_unit)
        if not plan["memory"]["fits"]:
            plan["fits_with"] = _first_that_fits(smaller_runs(), stage, limit, say)
    return plan


def usable_memory(accelerator: Tpu | Gpu) -> int:
    """Return the bytes of a device that programs and arrays may take."""
    return int(accelerator.memory * _USABLE[type(accelerator)])


def _first_that_fits(runs: Iterable[tuple[dict[str, Any], Run]], stage: TrainingStage, limit: int, say: Say) -> dict:
    """Return the first changes with which a stage fits and the peak that it has then; without any, both are None."""
    for changes, run in runs:
        say(f"with {', '.join(f'{name}={value}' for name, value in changes.items())}")
        peak = _compile(run, stage, say).memory.peak
        if peak <= limit:
            return {"changes": changes, "peak": peak}
    return {"changes": None, "peak": None}


def _compile(run: Run, stage: TrainingStage, say: Say) -> CompiledStep:
    size = run.config.train.batch_size
    say(f"compiling: stage {stage.name}, batch {size}")
    step = compile_for(run, stage)
    say(f"compiled in {step.seconds:.0f} s: {step.memory.peak / 1e9:,.2f} GB on each device")
    return step


def _seconds_of(accelerator: Tpu | Gpu) -> Callable[[Operation], float]:
    """Return what an operation costs when nothing else runs.

    XLA:TPU attaches an estimate to most operations; the others count nothing. XLA:GPU attaches none: there it is the
    time to move its bytes, or to run any kernel at all.
    """
    if isinstance(accelerator, Tpu):
        return lambda operation: operation.times * (operation.cycles or 0) / accelerator.clock
    return lambda operation: operation.times * max(operation.moved / accelerator.rates.memory, _SHORTEST_KERNEL)


def _estimate(run: Run, stage: TrainingStage, step: CompiledStep, accelerator: Tpu | Gpu) -> dict | None:
    """Return the seconds that the work of a step takes at published rates and one by one; None if it has none.

    The range of images/s goes from operations that run one by one to a step in which products and memory are busy all
    the time. What the devices send each other is not in it.
    """
    if not step.operations:
        return None
    rates, batch_size = accelerator.rates, run.config.train.batch_size
    rate = rates.bfloat16 if jnp.dtype(run.config.model.dtype) == jnp.bfloat16 else rates.float32
    flops = _model_flops(run, stage)
    moved = sum(operation.times * operation.moved for operation in step.operations)
    flops_s = None if flops is None else flops / run.parallel.mesh.size / rate
    one_by_one = sum(map(_seconds_of(accelerator), step.operations))
    if isinstance(accelerator, Gpu):
        one_by_one += flops_s or 0.0
    fastest = max(moved / rates.memory, flops_s or 0.0)
    return {
        "model_flops": flops,
        "compiled_flops": step.flops,
        "moved_bytes": moved,
        "flops_s": flops_s,
        "moved_s": moved / rates.memory,
        "one_by_one_s": one_by_one,
        "images_per_second": [batch_size / max(one_by_one, fastest), batch_size / fastest],
        "rates": rates.source,
    }


def _model_flops(run: Run, stage: TrainingStage) -> int | None:
    """Return the FLOPs of a step by formula; None if a part of the network is frozen, for which there is none."""
    if stage.config.cached_views is not None or not all(jax.tree.leaves(stage.mask)):
        return None
    seen = run.config.train.batch_size * run.augmentation.images_seen
    return 3 * forward_flops(run.model, stage.image_size) * seen
