"""Joining the processes of one run, on one host or many."""

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from bloodcell_jax.devices.native_aborts import NativeAborts
from bloodcell_jax.devices.peers import Peers
from bloodcell_jax.devices.process_end import end_process, say_end
from bloodcell_jax.errors import DataError, MachineError, UsageError, UserError

logger = logging.getLogger(__name__)

MODES = ("auto", "off", "slurm", "env")
_ENV_NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_SLURM_NAMES = ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST")

# The processes of the run that this one has joined: like `jax.distributed`, one for the whole process.
_peers: Peers | None = None
_place = "before the first step"


def join_processes(mode: str, *, connect_seconds: float = 300, heartbeat_seconds: float = 100) -> None:
    """Initialize `jax.distributed` if there is more than one process; call it before any device is touched.

    Args:
      mode: `off`; `env`, from JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID; `slurm`,
        from srun's variables; `auto`, env or slurm if all their variables are set and say more than one process,
        else off. A half-set environment, as an ssh session inside a job has it, is off.
      connect_seconds: how long the other processes are waited for.
      heartbeat_seconds: a process that shows no life for as long is dead, and ends the others.

    Raises:
      UsageError: the mode's variables are missing or no numbers.
      MachineError: the other processes cannot be reached. Mostly the process ends here, with exit code 5.
    """
    global _peers
    if mode == "auto":
        mode = _recognize()
    if mode == "off":
        return
    names = _ENV_NAMES if mode == "env" else _SLURM_NAMES
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise UsageError(f"--distributed={mode}: {', '.join(missing)} not set; set them, or use --distributed=off")
    import jax

    # It would take SIGTERM for itself, and nobody would ask it.
    jax.config.update("jax_enable_preemption_service", False)
    logger.info("--distributed=%s: waiting for the other processes, for at most %g s", mode, connect_seconds)
    told = NativeAborts(lambda text: _end_unjoined(_unreachable(mode, connect_seconds, text)))
    # Peers find a dead process first: the client of jax.distributed would abort.
    limits: dict[str, Any] = {
        "initialization_timeout": round(connect_seconds),
        "heartbeat_timeout_seconds": round(3 * heartbeat_seconds),
    }
    try:
        if mode == "slurm":
            jax.distributed.initialize(**limits)
        else:
            address, count, index = (os.environ[name] for name in _ENV_NAMES)
            jax.distributed.initialize(address, int(count), int(index), **limits)
    except ValueError as error:
        raise UsageError(f"--distributed={mode}: {error}") from error
    except RuntimeError as error:
        raise _unreachable(mode, connect_seconds, str(error)) from error
    _peers = _create_peers(heartbeat_seconds)
    told.on_abort = _peers.lost
    _peers.watch()


def _end_unjoined(error: MachineError) -> NoReturn:
    say_end(error)
    end_process(error.exit_code)


def _unreachable(mode: str, seconds: float, text: str) -> MachineError:
    if "ALREADY_EXISTS" in text:
        what = "two processes have the same number; give each its own, from 0 on"
    elif "DEADLINE_EXCEEDED" in text:
        what = (
            f"the other processes did not come within {seconds:g} s (--connect_seconds); start all of them, each with "
            "its own number, and check the address"
        )
    else:
        what = f"the other processes cannot be reached ({' '.join(text.split())[:300]})"
    return MachineError(f"--distributed={mode}: {what}")


def _create_peers(heartbeat_seconds: float) -> Peers:
    import jax

    # JAX has no public name for the client's store of values.
    from jax._src.distributed import global_state

    return Peers(global_state.client, jax.process_index(), jax.process_count(), heartbeat_seconds, place)


def _peers_of_run() -> Peers | None:
    """Return this process among those of the run; None if it is the only one."""
    import jax

    global _peers
    if _peers is None and jax.process_count() > 1:
        # Joined by the caller of the library, who watches them: none is ever taken for dead here.
        _peers = _create_peers(math.inf)
        _peers.watch()
    return _peers


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """End all processes of a run when one of them fails, each with the exit code of that failure."""
    with _peers.failing_together() if _peers else contextlib.nullcontext():
        yield


def end_all(error: UserError) -> None:
    """End all processes of a run with an error; return if this is the only one."""
    if _peers:
        _peers.fail(error)


def say_place(text: str) -> None:
    """Say where the run is, such as `at step 12 of 36`, for the line of whatever ends it."""
    global _place
    _place = text


def place() -> str:
    """Return where the run is."""
    return _place


def shared(name: str, compute: Callable[[], Any]) -> Any:
    """Return a JSON value that process 0 computes, in all processes of the run; all must ask for the same names."""
    peers = _peers_of_run()
    return peers.share(name, compute) if peers else compute()


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


def stops_here(signal: int) -> int:
    """Return the signal by which all processes of the run stop here, 0 if they go on.

    All must come to the same places. They agree within seconds after one of them was sent a signal.

    Args:
      signal: that this process was sent; 0 if none.
    """
    peers = _peers_of_run()
    return peers.stops_here(signal) if peers else signal


def wait_for_all(name: str) -> None:
    """Wait until every process of the run is here; `name` tells places apart."""
    if peers := _peers_of_run():
        peers.wait_for_all(name)


def device_map() -> str:
    """Return one line that says which process drives which devices."""
    import jax

    by_process: dict[int, list[str]] = {}
    for device in jax.devices():
        by_process.setdefault(device.process_index, []).append(str(device.id))
    kind = jax.devices()[0].device_kind
    parts = [f"process {process}: {', '.join(ids)}" for process, ids in sorted(by_process.items())]
    return f"{jax.device_count()} x {kind} ({'; '.join(parts)})"
