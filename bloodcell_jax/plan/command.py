"""The whole command: a process for each topology, one after the other, and the plans that they answer with."""

import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
from typing import Any

from bloodcell_jax.config import Config, to_dict
from bloodcell_jax.devices.parallel import check_divides
from bloodcell_jax.errors import MachineError, UsageError, UserError
from bloodcell_jax.plan.topology import Topology
from bloodcell_jax.run.environment import describe_machine

_log = logging.getLogger(__name__)

# Extra of setup.cfg -> the module that it brings.
_EXTRAS = {"tpu": ("plan-tpu", "libtpu"), "gpu": ("plan-gpu", "jax_plugins.xla_cuda13")}

_SETTINGS = {
    # Nothing asks the machine for a TPU, and another process may use the one that is there.
    "tpu": {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"},
    # The compiler needs none of CUDA's libraries, and no GPU that may be there.
    "gpu": {"JAX_PLATFORMS": "cuda,cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "CUDA_VISIBLE_DEVICES": ""},
}


def check_extras(topologies: list[Topology]) -> None:
    """Check that the compilers are installed.

    Raises:
      UsageError: one is not; names what to install.
    """
    for platform, (extra, module) in _EXTRAS.items():
        wanted = [topology.name for topology in topologies if topology.platform == platform]
        if wanted and not is_installed(module):
            raise UsageError(
                f"--topology={wanted[0]}: the compiler for it is not installed; run "
                f"pip install 'bloodcell_jax[{extra}]', which brings {module} alone and needs no such device"
            )


def is_installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package above it
        return False


def run_plan(config: Config, topologies: list[Topology], *, examples: int, find_largest: bool) -> dict[str, Any]:
    """Compile the stages of a configuration for each topology.

    Args:
      config: its source and its weights are not read.
      examples: how many images the data set has.
      find_largest: look for the largest batch that fits, too.

    Returns:
      The results, ready for JSON.

    Raises:
      UsageError: the devices of a topology do not divide the batch.
      UserError: as a topology's process says.
      MachineError: such a process ended before its answer.
    """
    for topology in topologies:  # before the first of them is compiled for minutes
        check_divides(topology.devices, config.train.batch_size)
    request = {"config": to_dict(config), "examples": examples, "largest_batch": find_largest}
    plans = [_ask(topology, request | {"topology": topology.name}) for topology in topologies]
    return {
        "environment": describe_machine(),
        "model": config.model.variant,
        "image_size": config.data.image_size,
        "batch_size": config.train.batch_size,
        "precision": config.model.dtype,
        "examples": examples,
        "topologies": plans,
        "config": to_dict(config),
    }


def _ask(topology: Topology, request: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "bloodcell_jax.plan.child"]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | _SETTINGS[topology.platform],
            text=True,
        )
        try:
            return _answer_of(process, request)
        except BrokenPipeError:
            pass
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        said = errors.read()
    if process.returncode > 0:
        # No RuntimeError: what the compiler said of its memory would be taken for a device of this machine.
        raise subprocess.SubprocessError(f"{topology.name}: the process that compiles failed:\n{said}")
    raise MachineError(
        f"{topology.name}: the process that compiles was ended by signal {-process.returncode}; memory may be full; "
        "try a smaller batch"
    )


def _answer_of(process: subprocess.Popen, request: dict[str, Any]) -> dict[str, Any]:
    """Return the plan that a process answers with.

    Raises:
      UserError: it answers with an error.
      BrokenPipeError: it ended without an answer.
    """
    assert process.stdin is not None, "it is a pipe"
    assert process.stdout is not None, "it is a pipe"
    json.dump(request, process.stdin)
    process.stdin.close()
    for line in process.stdout:
        answer = json.loads(line)
        if "plan" in answer:
            return answer["plan"]
        if "error" in answer:
            raise UserError(answer["error"], exit_code=answer["exit_code"])
        _log.info("%s", answer["progress"])
    process.wait()
    raise BrokenPipeError
