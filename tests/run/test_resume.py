"""Real processes, killed and told to stop; the same command goes on to the bit."""

import json
import os
import re
import runpy
import shutil
import signal
import time

import psutil
import pytest
from ml_collections.config_flags import config_path

from bloodcell_jax import cli
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.data.tfds_sets import prepare
from bloodcell_jax.errors import DataError, StoppedError, UsageError
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.models.registry import build_model, param_shapes
from bloodcell_jax.run.evaluation import RunEvaluator
from bloodcell_jax.run.job import train_and_evaluate
from bloodcell_jax.train.stages import plan_stages
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.checkpoint_folders import CheckpointFolders
from bloodcell_jax.workdir.json_files import read_json
from bloodcell_jax.workdir.resume import check_resumable, check_same_splits


def finish(process, code=0):
    output, errors = process.communicate()
    assert process.returncode == code, errors
    return output, errors


def metrics_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("perf/")} for line in lines]


def kill_at(process, workdir, step, number):
    """Send a signal as soon as the log holds a line of `step` or later."""
    while True:
        assert process.poll() is None, process.communicate()[1]
        if (workdir / "metrics.jsonl").exists():
            *lines, _ = (workdir / "metrics.jsonl").read_text().split("\n")
            if lines and json.loads(lines[-1])["step"] >= step:
                break
        time.sleep(0.002)
    process.send_signal(number)


def test_a_run_killed_and_stopped_in_either_stage_is_the_undisturbed_one(start, trained, tmp_path, assert_same_run):
    workdir = tmp_path / "run"
    # In the head's stage after its first checkpoint; then right at the change of stage; in the next stage; then late.
    # SIGUSR1 is SIGTERM in all but its name: test_preemption.py.
    for step, number, code in ((4, signal.SIGKILL, -9), (6, signal.SIGKILL, -9), (12, signal.SIGTERM, 75)):
        process = start(workdir)
        kill_at(process, workdir, step, number)
        _, errors = finish(process, code)
        assert not (workdir / "report").exists()
    check_stopped(workdir, errors, "SIGTERM")
    process = start(workdir)
    kill_at(process, workdir, 26, signal.SIGINT)
    _, errors = finish(process, 130)
    check_stopped(workdir, errors, "SIGINT")
    finish(start(workdir))
    assert [line["step"] for line in metrics_of(workdir)] == list(range(2, 37, 2))
    assert_same_run(workdir, trained)


def check_stopped(workdir, errors, name):
    last = errors.splitlines()[-1]
    assert last.startswith(f"bloodcell: stopped by {name} at step ")
    stopped = int(last.split(" at step ")[1].split()[0])
    assert CheckpointFolders(workdir / "checkpoints").steps()[-1] == stopped


@pytest.mark.exhaustive
def test_a_streamed_run_killed_and_stopped_and_resumed_resident_is_the_undisturbed_one(
    start, trained, cells, tmp_path, assert_same_run
):
    workdir = tmp_path / "run"
    prepare(
        load_source(f"npz:{cells}", image_size=32, class_names=("red", "green", "blue")), tmp_path / "sets", "cells"
    )
    flags = ["--config.data.source=tfds:blood_cells/cells", f"--config.data.data_dir={tmp_path / 'sets'}"]
    streaming = [*flags, "--config.data.feed=streaming", "--config.data.workers=1"]
    process = start(workdir, *streaming)
    kill_at(process, workdir, 4, signal.SIGSTOP)
    workers = psutil.Process(process.pid).children()
    assert workers
    process.send_signal(signal.SIGKILL)
    finish(process, -signal.SIGKILL)
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
    process = start(workdir, *streaming)
    kill_at(process, workdir, 12, signal.SIGSTOP)
    # As a scheduler does: to every process of the job.
    for each in (*psutil.Process(process.pid).children(), psutil.Process(process.pid)):
        each.send_signal(signal.SIGTERM)
        each.send_signal(signal.SIGCONT)
    _, errors = finish(process, 75)
    assert errors.splitlines()[-1].startswith("bloodcell: stopped by SIGTERM at step ")
    assert "Traceback" not in errors
    finish(start(workdir, *flags, "--config.data.feed=resident"))
    assert_same_run(workdir, trained)


def test_a_finished_run_says_so_and_makes_what_is_missing(start, trained, tmp_path, assert_same_run):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    shutil.rmtree(workdir / "report")
    shutil.rmtree(workdir / "eval" / "test")
    # An earlier version did not explain.
    (workdir / "eval" / "val" / "explained_cells.json").unlink()
    _, errors = finish(start(workdir))
    assert "already trained for all 36 steps" in errors
    assert (workdir / "report" / "index.html").exists()
    for name in ("eval/val/explained_cells.json", "eval/test/explained_cells.json", "eval/test/embedding_map.json"):
        assert (workdir / name).read_bytes() == (trained / name).read_bytes()
    assert_same_run(workdir, trained)


def test_a_finished_run_keeps_what_it_was_trained_with_and_makes_what_is_asked_for_now(start, trained, tmp_path):
    workdir = Workdir(shutil.copytree(trained, tmp_path / "run"))
    table = tmp_path / "stains.csv"
    rows = [f"{i},{'new' if i % 2 else 'old'}" for i in range(120)]
    table.write_text("\n".join(["file,stain", *rows]))
    before = read_json(workdir.environment)
    finish(
        start(workdir.path, "--config.evaluate.explain=3", f"--config.evaluate.slices=('{table}:stain',)", devices=2)
    )
    assert read_json(workdir.environment) == before
    metrics = read_json(workdir.evaluation("test").metrics)
    assert set(metrics["slices"]["stain"]) == {"new", "old"}
    assert len(read_json(workdir.evaluation("test").explained_cells)["cells"]) == 3


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(start, trained, tmp_path, assert_same_run):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    shutil.rmtree(workdir / "eval")
    (workdir / "model.safetensors").unlink()
    largest = max((workdir / "checkpoints" / "36" / "params").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    classifier = Classifier.from_workdir(workdir, checkpoint="last")
    assert classifier.step == 32
    _, errors = finish(start(workdir))
    assert re.search(r"bloodcell: .*/checkpoints/36: damaged, .* \(params/.*\)\n", errors)
    assert "stage all: steps 32 to 36" in errors
    assert_same_run(workdir, trained)


def test_without_a_whole_checkpoint_nothing_is_trained_or_deleted(config_file, trained, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    for path in (workdir / "checkpoints").glob("*/params/_METADATA"):
        path.write_bytes(b"")
    assert cli.main(["bloodcell", "train", f"--config={config_file}", f"--workdir={workdir}"]) == 3
    assert re.search(r"checkpoints: none .*\b36\b", capsys.readouterr().err.splitlines()[-1])
    steps = {path.name for path in (trained / "checkpoints").iterdir()}
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == steps


@pytest.mark.parametrize("lost", ["deleted", "empty"])
def test_splits_that_are_lost_do_not_open_a_leak(trained, tmp_path, lost):
    workdir = Workdir(shutil.copytree(trained, tmp_path / "run"))
    splits = json.loads(workdir.splits.read_text())
    workdir.splits.unlink() if lost == "deleted" else workdir.splits.write_text("")
    check_same_splits(workdir, splits)
    with pytest.raises(UsageError, match="splits or groups are not those"):
        check_same_splits(workdir, splits | {"sha256": "0" * 64})


def test_a_configuration_that_is_lost_does_not_begin_another_run(trained, tmp_path):
    workdir = Workdir(shutil.copytree(trained, tmp_path / "run"))
    config = workdir.read_config()
    workdir.config.unlink()
    with pytest.raises(DataError, match=r"config\.json: missing, .* step 36"):
        check_resumable(workdir, config, "0" * 64, 36)


def test_what_may_not_change_is_refused_with_both_values(config_file, trained, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file() and path.name != ".lock"}
    command = ["bloodcell", "train", f"--config={config_file}", f"--workdir={workdir}"]
    assert cli.main([*command, "--config.seed=4", "--config.model.drop_path=0.3"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    for words in ("seed", "3", "4", "drop_path", "0.2", "0.3", "--overwrite"):
        assert words in line
    after = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file() and path.name != ".lock"}
    assert before == after


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"train.backend": "jit", "train.log_every": 5, "evaluate.batch_size": 8, "data.source": "npz:moved.npz"},
            None,
        ),
        (
            {"data.feed": "streaming", "data.workers": 3},
            None,
        ),
        ({"train.evaluate_every": 3, "train.checkpoint_every": 0, "train.keep_last": 5, "train.keep_best": 0}, None),
        ({"stages[1].steps": 40}, None),
        ({"stages[1].epochs": 8.0, "stages[1].steps": None}, None),
        ({"stages[1].steps": 29}, "steps of all stages: 36 -> 35"),
        ({"stages[1].epochs": 2.0, "stages[1].steps": None}, "steps of all stages: 36 -> 16"),
        ({"stages[0].steps": 7}, "stages[0].steps: 6 -> 7"),
        ({"stages[1].optimizer.learning_rate": 1e-3}, "stages[1].optimizer.learning_rate: 0.0003 -> 0.001"),
        ({"train.batch_size": 24}, "train.batch_size: 16 -> 24"),
        ({"train.ema_decay": None}, "train.ema_decay: 0.8 -> None"),
        ({"data.image_size": 48}, "data.image_size: 32 -> 48"),
        ({"data.crop": 20}, "data.crop: 'auto' -> 20"),
    ],
)
def test_what_a_resumed_run_may_change(trained, changes, named):
    config = Workdir(trained).read_config()
    for path, value in changes.items():
        config_path.set_value(path, config, value)
    steps = plan_stages(config, param_shapes(build_model(config.model), config.data.image_size), epoch_size=84)[-1].stop
    data_hash = json.loads((trained / "environment.json").read_text())["data"]["sha256"]
    if named is None:
        assert check_resumable(Workdir(trained), config, data_hash, steps)
    else:
        with pytest.raises(UsageError, match=re.escape(named)):
            check_resumable(Workdir(trained), config, data_hash, steps)


def test_other_data_under_the_same_name_are_refused(trained):
    with pytest.raises(UsageError, match="their hashes differ"):
        check_resumable(Workdir(trained), Workdir(trained).read_config(), "0" * 64, 36)


def test_a_signal_in_an_evaluation_saves_the_step_which_is_evaluated_on_resume(config_file, tmp_path, monkeypatch):
    config = runpy.run_path(str(config_file))["get_config"]()
    # A head alone compiles in little time, and so does an evaluation that explains nothing.
    config.stages = config.stages[:1]
    config.stages[0].steps = 10
    config.evaluate.explain = 0
    train_and_evaluate(config, tmp_path / "undisturbed")
    predict = RunEvaluator.predict

    def interrupted(self, params, split, *, before_batch):
        os.kill(os.getpid(), signal.SIGTERM)
        return predict(self, params, split, before_batch=before_batch)

    with monkeypatch.context() as patched:
        patched.setattr(RunEvaluator, "predict", interrupted)
        with pytest.raises(StoppedError, match="SIGTERM at step 8 of 10"):
            train_and_evaluate(config, tmp_path / "run")
    folders = CheckpointFolders(tmp_path / "run" / "checkpoints")
    assert folders.steps()[-1] == 8
    assert folders.record(8)["metrics"] == {}
    assert [line["step"] for line in metrics_of(tmp_path / "run")] == [2, 4, 6]
    train_and_evaluate(config, tmp_path / "run")
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "undisturbed")
    assert folders.record(8)["metrics"].keys() == {"val/loss", "val/accuracy", "val/f1_macro"}
    for name in ("eval/test/predictions.csv", "eval/val/metrics.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
