"""Two real processes on loopback train as one, and either backend resumes the other's run."""

import json
import socket
import textwrap

import numpy as np
import pytest

from bloodcell_jax import cli

# Every process compiles for itself, so a network with little to compile; and a rate that does not know how long the
# stage is: runs of 10 and of 12 steps are one program.
CONFIG = """
    from bloodcell_jax.config import *

    def get_config(arg=""):
        optimizer = OptimizerConfig(name="adamw", learning_rate=1e-3, schedule="constant")
        return Config(
            data=DataConfig(source="npz:{cells}", image_size=32),
            model=ModelConfig(variant="custom_cnn", dtype="float32"),
            augment=AugmentConfig(policy="d4|brightness:delta=0.2"),
            stages=[
                StageConfig(name="head", steps=4, trainable=("head/.*", "!.*"), optimizer=optimizer),
                StageConfig(name="late", steps=6, trainable=("(head|stage_3).*", "!.*"), optimizer=optimizer),
            ],
            train=TrainConfig(batch_size=16, ema_decay=0.8, log_every=2, evaluate_every=8, checkpoint_every=4),
            evaluate=EvaluateConfig(batch_size=32),
        )
"""


@pytest.fixture(scope="module")
def config(cells, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.py"
    path.write_text(textwrap.dedent(CONFIG.format(cells=cells)))
    return path


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_together(start, config, workdir, *flags, own_flags=((), ())):
    address = f"127.0.0.1:{free_port()}"
    return [
        start(
            workdir,
            "--distributed=env",
            "--expected_devices=2",
            *flags,
            *own,
            config=config,
            env={
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": str(len(own_flags)),
                "JAX_PROCESS_ID": str(index),
            },
        )
        for index, own in enumerate(own_flags)
    ]


def train_together(start, config, workdir, *flags):
    processes = start_together(start, config, workdir, *flags)
    finished = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, finished, strict=True):
        assert process.returncode == 0, errors
    return finished


def metrics_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(start, config, tmp_path_factory):
    """Return the workdir of the same run by one process with two devices."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    process = start(workdir, config=config, devices=2)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return workdir


@pytest.mark.parametrize(("first", "second"), [("pmap", "jit"), ("jit", "pmap")])
def test_two_processes_train_save_and_are_resumed_by_the_other_backend(start, config, alone, tmp_path, first, second):
    workdir = tmp_path / "together"
    # The last stage may grow: the first backend leaves a checkpoint inside it.
    (output, errors), (other_output, other_errors) = train_together(
        start, config, workdir, f"--config.train.backend={first}"
    )
    assert "devices: 2 x cpu (process 0: 0; process 1: " in errors
    assert "report:" in output
    assert "report:" not in other_output
    assert other_errors == "", "one process speaks"
    train_together(start, config, workdir, f"--config.train.backend={second}", "--config.stages[1].steps=8")
    lines = metrics_of(workdir)
    assert [line["step"] for line in lines] == list(range(2, 13, 2))
    for ours, theirs in zip(lines, metrics_of(alone), strict=False):
        # The same examples and draws; sums run in another order.
        np.testing.assert_allclose(ours["train/loss"], theirs["train/loss"], rtol=1e-3)


def test_processes_with_other_data_are_refused_before_anything_is_written(start, config, cells, tmp_path):
    with np.load(cells) as arrays:
        changed = {name: arrays[name].copy() for name in arrays}
    changed["images"][77, 3, 3, 0] ^= 1
    np.savez(tmp_path / "other.npz", **changed)
    own_flags = ((), (f"--config.data.source=npz:{tmp_path / 'other.npz'}",))
    for process in start_together(start, config, tmp_path / "run", own_flags=own_flags):
        _, errors = process.communicate()
        assert process.returncode == 3, errors
        assert "the data of process 1 differ from those of process 0" in errors
    assert not (tmp_path / "run").exists()


def test_a_missing_device_is_refused(config_file, tmp_path, capsys):
    workdir = tmp_path / "run"
    command = ["bloodcell", "train", f"--config={config_file}", f"--workdir={workdir}"]
    assert cli.main([*command, "--expected_devices=4"]) == 5
    assert capsys.readouterr().err.splitlines()[-1].startswith("bloodcell: --expected_devices=4: 8 found")
    assert not workdir.exists()


def test_a_half_set_environment_is_named(config_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    command = ["bloodcell", "train", f"--config={config_file}", f"--workdir={tmp_path / 'run'}"]
    assert cli.main([*command, "--distributed=env"]) == 2
    assert "JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID not set" in capsys.readouterr().err.splitlines()[-1]
