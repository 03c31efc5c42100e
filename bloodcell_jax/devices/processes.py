"""Joining the processes of one run, on one host or many."""

import logging
import os

from bloodcell_jax.errors import DataError, MachineError, UsageError

logger = logging.getLogger(__name__)

MODES = ("auto", "off", "slurm", "env")
_ENV_NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_SLURM_NAMES = ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST")


def join_processes(mode: str) -> None:
    """Initialize `jax.distributed` if there is more than one process; call it before any device is touched.

    Args:
      mode: `off`; `env`, from JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID; `slurm`,
        from srun's variables; `auto`, env or slurm if all their variables are set and say more than one process,
        else off. A half-set environment, as an ssh session inside a job has it, is off.

    Raises:
      UsageError: the mode's variables are missing or no numbers.
      MachineError: the other processes cannot be reached.
    """
    if mode == "auto":
        mode = _recognize()
    if mode == "off":
        return
    names = _ENV_NAMES if mode == "env" else _SLURM_NAMES
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise UsageError(f"--distributed={mode}: {', '.join(missing)} not set; set them, or use --distributed=off")
    import jax

    if os.environ["JAX_PROCESS_ID" if mode == "env" else "SLURM_PROCID"] == "0":
        logger.info("--distributed=%s: waiting for the other processes", mode)
    try:
        if mode == "slurm":
            jax.distributed.initialize()
        else:
            address, count, index = (os.environ[name] for name in _ENV_NAMES)
            jax.distributed.initialize(address, int(count), int(index))
    except ValueError as error:
        raise UsageError(f"--distributed={mode}: {error}") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise MachineError(f"--distributed={mode}: the other processes cannot be reached ({reason})") from error


def _recognize() -> str:
    # The shell of an interactive step has the variables of its whole job, but is one process.
    slurm_count = "SLURM_STEP_NUM_TASKS" if os.environ.get("SLURM_STEP_NUM_TASKS") else "SLURM_NTASKS"
    for mode, names, count in (("env", _ENV_NAMES, "JAX_NUM_PROCESSES"), ("slurm", _SLURM_NAMES, slurm_count)):
        if all(os.environ.get(name) for name in names) and os.environ[count] != "1":
            return mode
    return "off"


def check_devices(expected: int | None) -> None:
    """Compare the number of devices over all processes with what was expected.

    Raises:
      MachineError: they differ.
    """
    import jax

    if expected is not None and jax.device_count() != expected:
        raise MachineError(
            f"--expected_devices={expected}: {jax.device_count()} found; check the launcher, "
            "drivers and CUDA_VISIBLE_DEVICES"
        )


def check_equal_everywhere(what: str, sha256: str) -> None:
    """Compare a hash over all processes, which must call this together.

    Raises:
      DataError: they differ; says which processes' do.
    """
    import jax
    import numpy as np

    if jax.process_count() == 1:
        return
    from jax.experimental.multihost_utils import process_allgather

    hashes = process_allgather(np.frombuffer(bytes.fromhex(sha256), np.uint8))
    different = np.flatnonzero((hashes != hashes[0]).any(1))
    if len(different):
        raise DataError(
            f"{what} of process {', '.join(map(str, different))} differ from those of process 0; give every host the "
            "same files"
        )


def any_process(value: bool) -> bool:
    """Return whether `value` holds in any process; all must call this together."""
    import jax
    import numpy as np

    if jax.process_count() == 1:
        return value
    from jax.experimental.multihost_utils import process_allgather

    return bool(process_allgather(np.int32(value)).any())


def wait_for_all(name: str) -> None:
    """Wait until every process of the run is here; `name` tells places apart."""
    import jax

    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices(name)


def device_map() -> str:
    """Return one line that says which process drives which devices."""
    import jax

    by_process: dict[int, list[str]] = {}
    for device in jax.devices():
        by_process.setdefault(device.process_index, []).append(str(device.id))
    kind = jax.devices()[0].device_kind
    parts = [f"process {process}: {', '.join(ids)}" for process, ids in sorted(by_process.items())]
    return f"{jax.device_count()} x {kind} ({'; '.join(parts)})"
