"""How the processes of a run are recognized from what a launcher leaves in the environment."""

import jax
import pytest

from bloodcell_jax.devices.processes import _recognize, join_processes

SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NODELIST": "localhost",
}
ENV = {"JAX_COORDINATOR_ADDRESS": "localhost:1234", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({}, "off"),
        (SLURM, "slurm"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "4"}, "slurm"),
        (SLURM | {"SLURM_NTASKS": "1"}, "off"),
        # The shell of `salloc -n 4` in an interactive step; a step of one task inside a larger job.
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, "off"),
        ({name: value for name, value in SLURM.items() if name != "SLURM_STEP_NODELIST"}, "off"),
        (ENV, "env"),
        (ENV | {"JAX_NUM_PROCESSES": "1"}, "off"),
        (ENV | SLURM, "env"),
    ],
)
def test_a_launcher_is_recognized(variables, mode, monkeypatch):
    for name in (*SLURM, *ENV, "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert _recognize() == mode
    if mode == "off":
        join_processes("auto")
        assert not jax.distributed.is_initialized()
