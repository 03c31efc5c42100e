"""Two real processes on loopback train as one, and either backend resumes the other's run."""

import json
import re
import shutil
import signal
import socket
import textwrap
import time

import numpy as np
import pytest

from bloodcell_jax import cli
from bloodcell_jax.workdir.checkpoint_folders import CheckpointFolders

# Every process compiles for itself, so a network with little to compile; and a rate that does not know how long the
# stage is: runs of 10 and of 12 steps are one program.
CONFIG = """
    from bloodcell_jax.config import *

    def optimizer():
        return OptimizerConfig(name="adamw", learning_rate=1e-3, schedule="constant")

    def get_config(arg=""):
        return Config(
            data=DataConfig(source="npz:{cells}", image_size=32),
            model=ModelConfig(variant="custom_cnn", dtype="float32"),
            augment=AugmentConfig(policy="d4|brightness:delta=0.2"),
            stages=[
                StageConfig(name="head", steps=4, trainable=("head/.*", "!.*"), optimizer=optimizer()),
                StageConfig(name="late", steps=6, trainable=("(head|stage_3).*", "!.*"), optimizer=optimizer()),
            ],
            train=TrainConfig(batch_size=16, ema_decay=0.8, log_every=2, evaluate_every=8, checkpoint_every=4),
            evaluate=EvaluateConfig(batch_size=32, explain=0),
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
            f"--expected_devices={len(own_flags)}",
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


def finish_together(processes):
    finished = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, finished, strict=True):
        assert process.returncode == 0, errors
    return finished


def metrics_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("perf/")} for line in lines]


def wait_for_step(workdir, step, processes):
    log = workdir / "metrics.jsonl"
    while not log.exists() or not any(line["step"] >= step for line in whole_lines(log)):
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        time.sleep(0.01)


def whole_lines(path):
    *lines, _ = path.read_text().split("\n")
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def together(start, config, tmp_path_factory):
    """Return the workdir of a run by two processes that nothing disturbed, and what each of them said."""
    workdir = tmp_path_factory.mktemp("together") / "run"
    return workdir, finish_together(start_together(start, config, workdir))


def test_one_process_speaks(together):
    _, ((output, errors), (other_output, other_errors)) = together
    assert "devices: 2 x cpu (process 0: 0; process 1: " in errors
    assert "report:" in output
    assert "report:" not in other_output
    assert [line for line in other_errors.splitlines() if "waiting for the other processes" not in line] == []


@pytest.mark.exhaustive  # Two runs of two processes, a minute.
def test_two_processes_are_resumed_by_the_other_backend_and_back(start, config, together, tmp_path):
    workdir = shutil.copytree(together[0], tmp_path / "run")
    # The last stage may grow.
    for backend, steps in (("jit", 8), ("pmap", 10)):
        flags = (f"--config.train.backend={backend}", f"--config.stages[1].steps={steps}")
        finish_together(start_together(start, config, workdir, *flags))
    process = start(tmp_path / "alone", "--config.stages[1].steps=10", config=config, devices=2)
    assert process.communicate()
    assert process.returncode == 0
    lines, alone = metrics_of(workdir), metrics_of(tmp_path / "alone")
    assert [line["step"] for line in lines] == [line["step"] for line in alone] == list(range(2, 15, 2))
    for ours, theirs in zip(lines, alone, strict=True):
        # The same examples and draws; sums run in another order.
        np.testing.assert_allclose(ours["train/loss"], theirs["train/loss"], rtol=1e-3)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.faults)])
def test_a_process_that_dies_ends_the_others_with_one_line_and_the_run_goes_on(
    start, config, together, tmp_path, count
):
    workdir, undisturbed, own_flags = tmp_path / "run", together[0], ((),) * count
    if count > 2:
        undisturbed = tmp_path / "undisturbed"
        finish_together(start_together(start, config, undisturbed, own_flags=own_flags))
    for victim, step in ((1, 2), (0, 6)):
        processes = start_together(start, config, workdir, "--heartbeat_seconds=15", own_flags=own_flags)
        wait_for_step(workdir, step, processes)
        processes[victim].kill()
        processes[victim].communicate()
        began = time.monotonic()
        for other in processes[:victim] + processes[victim + 1 :]:
            _, errors = other.communicate(timeout=60)
            assert time.monotonic() - began < 2 * 15
            assert other.returncode == 5, errors
            (said,) = [line for line in errors.splitlines() if line.startswith("bloodcell: process")]
            assert re.search(rf"process {victim} stopped answering at step \d+ of 10; ", said), errors
            assert not re.search("Traceback|stack trace", errors), errors
    finish_together(start_together(start, config, workdir, own_flags=own_flags))
    assert metrics_of(workdir) == metrics_of(undisturbed)
    for name in ("eval/val/predictions.csv", "eval/test/predictions.csv"):
        assert (workdir / name).read_bytes() == (undisturbed / name).read_bytes()


def stop(processes, told):
    """Send SIGTERM to one of the processes; return the seconds until all have stopped, their state saved."""
    began = time.monotonic()
    processes[told].send_signal(signal.SIGTERM)
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 75, errors
        assert errors.splitlines()[-1].startswith("bloodcell: stopped by SIGTERM at step "), errors
    return time.monotonic() - began


@pytest.mark.faults
def test_a_signal_to_one_process_stops_all_at_a_step_that_is_not_logged(start, config, tmp_path):
    flags = [f"--config.train.{name}_every=100000" for name in ("log", "evaluate")]
    processes = start_together(
        start, config, tmp_path / "run", *flags, "--config.train.checkpoint_every=50", "--config.stages[1].steps=100000"
    )
    folders = CheckpointFolders(tmp_path / "run" / "checkpoints")
    while not folders.steps()[-1:] >= [50]:
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        time.sleep(0.01)
    assert stop(processes, told=0) < 20
    assert folders.steps()[-1] > 50


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Return flags for a source whose evaluation takes long in batches of two."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("many") / "many.npz"
    np.savez(path, images=rng.integers(0, 256, (3000, 32, 32, 3), np.uint8), labels=np.arange(3000) % 3)
    data = {"source": f"npz:{path}", "splits": "(0.03,0.96,0.01)", "group_duplicates": "False"}
    return [f"--config.data.{name}={value}" for name, value in data.items()]


@pytest.fixture(scope="module")
def stopped(start, config, many, tmp_path_factory):
    """Return the workdir of a run of which one process got a signal in the evaluation after step 4."""
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    processes = start_together(
        start, config, workdir, *many, "--config.train.log_every=1", "--config.evaluate.batch_size=2"
    )
    wait_for_step(workdir, 3, processes)
    time.sleep(1)
    assert stop(processes, told=1) < 20
    return workdir


def test_a_signal_to_one_process_stops_all_in_an_evaluation(stopped):
    folders = CheckpointFolders(stopped / "checkpoints")
    assert folders.steps() == [4]
    assert folders.record(4)["metrics"] == {}
    assert [line["step"] for line in metrics_of(stopped)] == [1, 2, 3]


@pytest.mark.faults
def test_the_evaluation_that_a_signal_stopped_is_made_on_resume(start, config, many, stopped, tmp_path):
    workdir = shutil.copytree(stopped, tmp_path / "run")
    finish_together(start_together(start, config, workdir, *many, "--config.evaluate.batch_size=1000"))
    lines = {line["step"]: line for line in metrics_of(workdir)}
    assert list(lines) == [1, 2, 3, 4, 6, 8, 10]
    assert all(("val/loss" in line) == (step in (4, 8, 10)) for step, line in lines.items())


@pytest.mark.faults
def test_steps_are_skipped_and_a_run_diverges_as_in_one_process(start, config, cells, tmp_path):
    """The first stage has spikes; the rate of the second leaves no norm of parameters finite."""
    flags = [f"--config.train.{field}" for field in ("spike_sigma=1", "max_bad_steps=3", "evaluate_every=1000")]
    flags += ["--config.stages[0].steps=60", "--config.stages[1].optimizer.learning_rate=1e30"]
    processes = start_together(start, config, tmp_path / "run", *flags)
    said = []
    for process in (*processes, start(tmp_path / "alone", *flags, config=config, devices=2)):
        said.append(process.communicate()[1].splitlines()[-1])
        assert process.returncode == 4, said
    assert said[0] == said[1] == said[2].replace(str(tmp_path / "alone"), str(tmp_path / "run"))
    ours, alone = (whole_lines(tmp_path / name / "bad_steps.jsonl") for name in ("run", "alone"))
    print(f"skipped: {[(line['step'], line['reason']) for line in ours]}")
    assert [line | {"loss": None} for line in ours] == [line | {"loss": None} for line in alone]
    assert {line["reason"] for line in ours} == {"spike", "parameters"}
    with np.load(tmp_path / "run" / "bad_batch.npz") as batch, np.load(cells) as source:
        (line,) = [line for line in ours if line["step"] == batch["step"]]
        assert batch["ids"].tolist() == line["ids"]
        rows = batch["ids"].astype(int)
        assert len(rows) == 16
        np.testing.assert_array_equal(batch["images"], source["images"][rows])
        np.testing.assert_array_equal(batch["labels"], source["labels"][rows])


def test_an_error_of_one_process_ends_the_other_with_its_code_in_seconds(start, config, tmp_path):
    own_flags = ((), (f"--config.data.source=npz:{tmp_path / 'absent.npz'}",))
    finished = [
        (p.communicate(timeout=60)[1], p.returncode)
        for p in start_together(start, config, tmp_path / "run", own_flags=own_flags)
    ]
    assert [code for _, code in finished] == [3, 3]
    assert "bloodcell: process 1: npz:" in finished[0][0]
    assert "absent.npz" in finished[1][0]


@pytest.mark.parametrize(("numbers", "said"), [((0,), "did not come within 3 s"), ((1, 1), "same number|did not come")])
def test_processes_that_do_not_come_or_come_twice_are_named(start, config, tmp_path, numbers, said):
    environment = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "3"}
    processes = [
        start(tmp_path / "run", "--connect_seconds=3", config=config, env=environment | {"JAX_PROCESS_ID": str(number)})
        for number in numbers
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 5, errors
        assert errors.count("\n") == 2, errors
        assert re.search(said, errors.splitlines()[-1])
    assert not (tmp_path / "run").exists()


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
