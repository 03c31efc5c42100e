"""Real processes, killed and told to stop; the same command goes on to the bit."""

import json
import re
import shutil
import signal
import time

import jax
import numpy as np
import psutil
import pytest
from ml_collections.config_flags import config_path

from bloodcell_jax import cli
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.data.tfds_sets import prepare
from bloodcell_jax.errors import UsageError
from bloodcell_jax.models.registry import build_model, param_shapes
from bloodcell_jax.run.create import create_run
from bloodcell_jax.train.stages import plan_stages
from bloodcell_jax.weights.model_file import read_model_file
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.checkpoints import Checkpoints
from bloodcell_jax.workdir.resume import check_resumable


def finish(process, code=0):
    output, errors = process.communicate()
    assert process.returncode == code, errors
    return output, errors


def metrics_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("perf/")} for line in lines]


def final_state(workdir):
    """Return every array of the last checkpoint, by name."""
    run = create_run(Workdir(workdir).read_config())
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    like = run.state_shapes(run.stages[-1]).to_trees()
    trees = checkpoints.restore(checkpoints.folders.steps()[-1], like, run.parallel.replicated)
    checkpoints.close()
    flat, _ = jax.tree_util.tree_flatten_with_path(trees)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}


def assert_same_run(workdir, other):
    assert metrics_of(workdir) == metrics_of(other)
    for split in ("val", "test"):
        name = f"eval/{split}/predictions.csv"
        assert (workdir / name).read_bytes() == (other / name).read_bytes()
    (ours, record), (theirs, other_record) = (read_model_file(w / "model.safetensors") for w in (workdir, other))
    assert (record.step, record.metrics) == (other_record.step, other_record.metrics)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    ours, theirs = final_state(workdir), final_state(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


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


def test_kill_9_in_either_stage_and_resume_is_equal_to_the_bit(start, trained, tmp_path):
    workdir = tmp_path / "run"
    # In the head's stage after its first checkpoint; then right at the change of stage; then late.
    for step in (4, 6, 28):
        process = start(workdir)
        kill_at(process, workdir, step, signal.SIGKILL)
        finish(process, -signal.SIGKILL)
        assert not (workdir / "report").exists()
    finish(start(workdir))
    assert [line["step"] for line in metrics_of(workdir)] == list(range(2, 37, 2))
    assert_same_run(workdir, trained)


def test_a_signal_saves_and_stops(start, trained, tmp_path):
    workdir = tmp_path / "run"
    # SIGUSR1 is SIGTERM in all but its name: test_preemption.py.
    for step, number, code in ((10, signal.SIGTERM, 75), (26, signal.SIGINT, 130)):
        process = start(workdir)
        kill_at(process, workdir, step, number)
        _, errors = finish(process, code)
        assert errors.splitlines()[-1].startswith(f"bloodcell: stopped by {number.name} at step ")
        assert "stopped by" in errors
        stopped = int(errors.split(" at step ")[-1].split()[0])
        checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
        assert checkpoints.folders.steps()[-1] == stopped
        checkpoints.close()
    finish(start(workdir))
    assert_same_run(workdir, trained)


def test_a_streamed_run_killed_and_stopped_and_resumed_resident_is_the_undisturbed_one(start, trained, cells, tmp_path):
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


def test_a_finished_run_says_so_and_makes_what_is_missing(start, trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    shutil.rmtree(workdir / "report")
    shutil.rmtree(workdir / "eval" / "test")
    _, errors = finish(start(workdir))
    assert "already trained for all 36 steps" in errors
    assert (workdir / "report" / "index.html").exists()
    assert_same_run(workdir, trained)


def test_a_checkpoint_cut_short_is_named(config_file, trained, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    last = workdir / "checkpoints" / "36"
    for path in (last / "params").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    shutil.rmtree(workdir / "eval")
    assert cli.main(["bloodcell", "train", f"--config={config_file}", f"--workdir={workdir}"]) == 3
    errors = capsys.readouterr().err
    assert str(last) in errors.splitlines()[-1]
    assert "Traceback" not in errors


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
