"""What a finished run leaves, and what the verb prints."""

import csv
import json
import re
import shutil

import numpy as np
import pytest

from bloodcell_jax import cli
from bloodcell_jax.config import from_dict, to_dict
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.run.job import train_and_evaluate
from bloodcell_jax.workdir import Workdir


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_workdir_holds_what_is_promised(trained):
    names = {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()}
    for name in (
        *("config.json", "environment.json", "splits.json", "metrics.jsonl", "report/index.html"),
        "model.safetensors",
    ):
        assert name in names
    for split in ("val", "test"):
        assert {f"eval/{split}/metrics.json", f"eval/{split}/predictions.csv"} <= names
    assert sum(path.name.startswith("events.") for path in trained.iterdir()) == 1
    steps = sorted(int(path.name) for path in (trained / "checkpoints").iterdir())
    # The last two, and the best by val/f1_macro where it is another.
    assert steps[-2:] == [32, 36]
    assert len(steps) <= 3


def test_the_log_has_one_line_per_logged_step(trained):
    lines = Workdir(trained).read_metrics()
    assert [line["step"] for line in lines] == list(range(2, 37, 2))
    always = {
        "stage",
        "epoch",
        "train/loss",
        "train/accuracy",
        "lr",
        "skipped_steps",
        "perf/images_per_second",
        "perf/mfu",
        "perf/data_wait",
    }
    always |= {f"norm/{name}" for name in ("gradient", "parameter", "update")}
    evaluated = {"val/loss", "val/accuracy", "val/f1_macro"}
    for line in lines:
        # Every eighth step is evaluated, and the last of each stage.
        expected = always | {"step"} | (evaluated if line["step"] in (6, 8, 16, 24, 32, 36) else set())
        assert set(line) == expected, line["step"]
        assert line["stage"] == ("head" if line["step"] <= 6 else "all")
        assert line["epoch"] == pytest.approx(line["step"] * 16 / 84)


def test_it_learns_and_its_numbers_agree(trained):
    metrics = json.loads((trained / "eval/test/metrics.json").read_text())
    rows = rows_of(trained / "eval/test/predictions.csv")
    assert metrics["n"] == len(rows) == len({row["id"] for row in rows}) == 18
    assert metrics["accuracy"] == np.mean([row["label"] == row["predicted"] for row in rows]) > 0.8
    for row in rows:
        probabilities = [float(row[name]) for name in ("red", "green", "blue")]
        assert sum(probabilities) == pytest.approx(1, abs=2e-6)
        assert float(row["confidence"]) == max(probabilities)
    last = Workdir(trained).read_metrics()[-1]
    val = json.loads((trained / "eval/val/metrics.json").read_text())
    best = max(line["val/f1_macro"] for line in Workdir(trained).read_metrics() if "val/f1_macro" in line)
    assert val["f1_macro"] == pytest.approx(best)
    assert last["train/loss"] < Workdir(trained).read_metrics()[0]["train/loss"]


def test_the_config_is_data(trained):
    config = Workdir(trained).read_config()
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert config.model.num_classes == 3
    assert config.model.mean == (0.485, 0.456, 0.406)


def test_a_second_call_goes_on_in_eight_devices_where_it_was_left(trained):
    before = (trained / "eval/test/predictions.csv").read_bytes()
    result = train_and_evaluate(Workdir(trained).read_config(), trained)
    assert (result.step, result.workdir) == (36, trained)
    assert result.metrics["test"] == json.loads((trained / "eval/test/metrics.json").read_text())
    assert (trained / "eval/test/predictions.csv").read_bytes() == before


def test_dry_run_says_data_time_cost_and_parameters_and_writes_nothing(trained, start, tmp_path):
    # After `trained` little is left to compile: a step without a backbone.
    process = start(tmp_path / "run", "--dry_run", "--json", "--config.stages[0].cached_views=2")
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    lines = [line.split() for line in errors.splitlines()]
    assert ["head/kernel", "128x3", "yes", "trainable", "trainable"] in lines
    assert ["stage_0/block_0/layer_scale", "32", "no", "frozen", "trainable"] in lines
    assert ["trainable", "of", "349,187", "387", "349,187"] in lines
    assert ["red", "28", "6", "6"] in lines
    costs = {line[0]: line for line in lines if line and line[0] in ("head", "all") and line[1] in ("6", "30")}
    assert float(costs["head"][4]) < 0.01 * float(costs["all"][4])
    kept = "head runs the backbone once for each view and keeps features of 84 examples in 2 views, 0.1 MB"
    # The classes and the time come first, the long table last.
    firsts = ["class train val test", "time: about ", "stage steps ", kept, "parameter ", "trainable of 349,187"]
    found = [next(i for i, line in enumerate(lines) if " ".join(line).startswith(first)) for first in firsts]
    assert found == sorted(found)
    assert found[-1] == len(lines) - 1
    values = json.loads(output)
    assert values["splits"]["test"] == {"red": 6, "green": 6, "blue": 6}
    assert values["seconds"] == pytest.approx(sum(s["seconds_per_step"] * s["steps"] for s in values["stages"]))
    head, everything = values["stages"]
    assert (head["steps"], everything["steps"]) == (6, 30)
    assert 0 < head["seconds_per_step"] < everything["seconds_per_step"]
    assert values["trainable"] == {"head": 387, "all": 349187}
    assert list(tmp_path.iterdir()) == []


def test_overwrite_deletes_the_run_and_nothing_else(trained, tmp_path, start):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    mine = [workdir / name for name in ("notes.txt", "events.csv", "report/figure.png", "eval/test/slide.pdf")]
    for path in mine:
        path.write_text("mine")
    # A head alone compiles in little time, and so does an evaluation that explains nothing.
    flags = ("--config.seed=4", "--config.stages[1].trainable=('head/.*','!.*')", "--config.evaluate.explain=0")
    process = start(workdir, *flags, "--overwrite")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert [path.read_text() for path in mine] == ["mine"] * 4
    assert Workdir(workdir).read_config().seed == 4
    assert [line["step"] for line in Workdir(workdir).read_metrics()] == list(range(2, 37, 2))
    assert Workdir(workdir).read_metrics()[0]["train/loss"] != Workdir(trained).read_metrics()[0]["train/loss"]


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_what_a_run_starts_from_is_not_overwritten(trained, tmp_path, config_file, capsys, name):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    before = sorted(workdir.rglob("*"))
    command = ["bloodcell", "train", f"--config={config_file}", f"--workdir={workdir}", "--overwrite"]
    assert cli.main([*command, f"--config.model.weights={workdir / name}"]) == 2
    assert str(workdir / name) in capsys.readouterr().err
    assert sorted(workdir.rglob("*")) == before


@pytest.mark.parametrize("exists", [False, True])
def test_a_workdir_in_the_source_is_refused(config_file, trained, tmp_path, capsys, exists):
    """A run there would read its own pictures on resume."""
    source, workdir = f"folder:{tmp_path / 'cells'}", tmp_path / "cells" / "red" / "run"
    (tmp_path / "cells" / "red").mkdir(parents=True)
    if exists:
        shutil.copytree(trained, workdir)
    (tmp_path / "link").symlink_to(tmp_path / "cells")
    for place in (workdir, tmp_path / "link" / "red" / "run"):
        command = ["bloodcell", "train", f"--config={config_file}", f"--config.data.source={source}"]
        assert cli.main([*command, f"--workdir={place}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()[-1:]
        assert f"--workdir={place}: " in line
        assert source in line
    assert workdir.exists() == exists


def test_a_run_that_diverges_names_the_checkpoint_before_and_saves_no_other(start, trained, tmp_path):
    flags = ["learning_rate=1e30", "warmup_steps=0"]
    flags = [f"--config.stages[1].optimizer.{flag}" for flag in flags]
    # A head alone compiles in little time.
    process = start(tmp_path / "run", *flags, "--config.stages[1].trainable=('head/.*','!.*')")
    _, errors = process.communicate()
    assert process.returncode == 4
    assert re.search(r"\nbloodcell: step 8: .* step 6\b.*\n$", errors)
    steps = [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert max(steps) == 6
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    assert np.isfinite(Classifier.from_workdir(tmp_path / "run", checkpoint="last").predict(images)).all()
