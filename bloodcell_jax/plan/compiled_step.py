"""The step of a stage, compiled for devices that are not here, and what it needs of them."""

import re
import time
from dataclasses import dataclass
from typing import Any

import jax

from bloodcell_jax.plan.program import Operation, read_operations
from bloodcell_jax.run.compilation import compile_stage
from bloodcell_jax.run.inputs import RunInputs
from bloodcell_jax.run.run import Run
from bloodcell_jax.train.stages import TrainingStage

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Memory:
    """Bytes on each device; donated arguments count once.

    Attributes:
      arguments: state, images, batch.
      temporaries: what the step holds while it runs.
      peak: what it needs in all. If the compiler found no way to fit the step in, this is all that is known.
      program: the program itself; 0 where it is not kept on the device.
    """

    arguments: int | None
    temporaries: int | None
    peak: int
    program: int | None


@dataclass(frozen=True)
class CompiledStep:
    """A step that was compiled, or would not fit.

    Attributes:
      seconds: time of tracing, lowering and compiling.
      operations: of the program; empty if it would not fit.
      flops: the compiler's count on one device; None if it gives none.
    """

    seconds: float
    memory: Memory
    operations: list[Operation]
    flops: float | None


def compile_for(run: Run, stage: TrainingStage) -> CompiledStep:
    """Compile the step of a stage for the devices of the run."""
    start = time.perf_counter()
    try:
        program = compile_stage(run, stage, RunInputs(run).of_stage(stage))
    except jax.errors.JaxRuntimeError as error:
        needed = needed_bytes(str(error))
        if needed is None:
            raise
        return CompiledStep(time.perf_counter() - start, Memory(None, None, needed, None), [], None)
    seconds = time.perf_counter() - start
    flops = (program.cost_analysis() or {}).get("flops")
    return CompiledStep(seconds, _memory(program), read_operations(program.as_text()), flops)


def _memory(program: Any) -> Memory:
    memory = program.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    program_bytes = memory.generated_code_size_in_bytes
    return Memory(
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        peak=held + memory.temp_size_in_bytes + program_bytes,
        program=program_bytes,
    )


def needed_bytes(message: str) -> int | None:
    """Return the bytes that a program would need, from the compiler's refusal; None if it refused something else.

    XLA:TPU says `Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm.`, or, if no order of the operations
    can help, `the total memory required for HLO temporaries (20.00G) exceeds available HBM (15.75G)`.
    """
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    amount = r"([\d.]+)([KMGT]?)"
    found = re.search(rf"Used {amount} of \S+ hbm|required for HLO temporaries \({amount}\)", message)
    if found is None:
        return None
    number, unit = (group for group in found.groups() if group is not None)
    return round(float(number) * _UNITS[unit])
