"""The scripts of launch/ start a run again when that helps. Small programs stand in for those of a cluster."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bloodcell_jax.errors import DataError, DivergedError, MachineError, StoppedError, UsageError

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
SAVED, MACHINE = StoppedError.exit_code, MachineError.exit_code


@pytest.mark.parametrize("name", ["slurm.sbatch", "tpu_vm.sh"])
def test_scripts_are_sound(name):
    subprocess.run(["bash", "-n", LAUNCH / name], check=True)
    beside_python = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = subprocess.run(
        [shutil.which("shellcheck", path=beside_python), LAUNCH / name], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout


def test_slurm_s_options():
    text = (LAUNCH / "slurm.sbatch").read_text(encoding="utf-8")
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.MULTILINE))
    grace = int(re.search(r" --grace_seconds=(\d+)", text)[1])
    signal, _, seconds = options["signal"].partition("@")
    assert signal == "USR1", "without B: it goes to the tasks, not to the shell"
    assert int(seconds) >= 1.25 * grace
    assert {"requeue", "ntasks-per-node", "gpus-per-node"} <= options.keys()
    assert "gpus-per-task" not in options
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert options["open-mode"] == "append", "a run that was put back goes on in the same log"


@pytest.fixture
def stand_in(tmp_path):
    """Return a function that puts programs on the PATH: small scripts that stand in for those of a cluster."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def put(**programs):
        for name, script in programs.items():
            (folder / name).write_text(f"#!/bin/bash\n{script}\n")
            (folder / name).chmod(0o755)
        return {
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "LOG": str(tmp_path / "log"),
        }

    return put


def run_script(name, environment):
    done = subprocess.run(["bash", LAUNCH / name], env=environment, capture_output=True, text=True, timeout=60)
    log = Path(environment["LOG"])
    return done.returncode, log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize(
    ("code", "restarts", "again"),
    [
        (0, 0, False),
        (1, 0, False),
        *[(error.exit_code, 0, False) for error in (UsageError, DataError, DivergedError)],
        (SAVED, 0, True),
        (SAVED, 99, True),
        (MACHINE, 9, True),
        (MACHINE, 10, False),
        (137, 0, True),
        (130, 0, False),
    ],
)
def test_slurm_puts_back_what_another_start_helps(code, restarts, again, stand_in):
    environment = stand_in(srun=f"exit {code}", scontrol='echo "$@" >> "$LOG"')
    environment |= {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts)}
    assert run_script("slurm.sbatch", environment) == (code, ["requeue 7"] if again else [])


def test_a_job_that_is_cancelled_is_not_put_back(stand_in):
    environment = stand_in(srun=f'kill -TERM "$PPID"; exit {SAVED}', scontrol='echo "$@" >> "$LOG"')
    assert run_script("slurm.sbatch", environment | {"SLURM_JOB_ID": "7"}) == (SAVED, [])


@pytest.mark.parametrize(("tasks", "gpus"), [("4", ""), ("1", "0,1,2,3")])
def test_a_process_alone_on_its_node_takes_all_its_gpus(tasks, gpus, stand_in):
    environment = stand_in(srun='echo "$JAX_LOCAL_DEVICE_IDS" >> "$LOG"')
    environment |= {"SLURM_NTASKS_PER_NODE": tasks, "SLURM_GPUS_ON_NODE": "4"}
    assert run_script("slurm.sbatch", environment) == (0, [gpus])


def test_a_preempted_tpu_slice_is_made_again_and_the_command_run_again(stand_in, tmp_path):
    # In three tries the slice is preempted, a signal stops the run, and the run is done.
    state, tries = tmp_path / "state", tmp_path / "tries"
    environment = stand_in(
        gcloud=f"""
            last="${{@: -1}}"
            case "$*" in
            *describe*) cat {state} 2>/dev/null ;;
            *delete*) rm {state}; echo delete >> "$LOG" ;;
            *create*) echo ACTIVE > {state}; echo create >> "$LOG" ;;
            *ssh*) bash -c "${{last#--command=}}" ;;
            esac""",
        bloodcell=f"""
            echo x >> {tries}
            echo "$JAX_COORDINATOR_ADDRESS $JAX_NUM_PROCESSES $JAX_PROCESS_ID" >> "$LOG"
            case $(wc -l < {tries}) in
            1) echo SUSPENDED > {state}; exit 255 ;;
            2) exit {SAVED} ;;
            esac""",
        curl='case "$*" in *endpoints) echo "a:1:10.0.0.3,b:2:10.0.0.4" ;; *number) echo 1 ;; *) exit 22 ;; esac',
        **dict.fromkeys(("sleep", "sudo", "mountpoint", "pip", "cp"), "exit 0"),
    )
    uv = tmp_path / ".local" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.symlink_to("/bin/true")
    environment |= {"NAME": "n", "ZONE": "z", "NFS": "10.0.0.2:/cells", "WORK": str(tmp_path)}
    code, log = run_script("tpu_vm.sh", environment)
    host = "10.0.0.3:8476 2 1"
    assert (code, log) == (0, ["create", host, "delete", "create", host, host])
