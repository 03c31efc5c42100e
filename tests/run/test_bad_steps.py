"""A run that meets bad numbers: what it skips, what it writes down, when it ends, and how it goes on."""

import contextlib
import copy
import json
import re
import runpy

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from bloodcell_jax.config import ModelConfig
from bloodcell_jax.devices.parallel import AXIS, DataParallel
from bloodcell_jax.errors import DivergedError
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.run import Run
from bloodcell_jax.workdir.checkpoints import Checkpoints

NAN = float("nan")


@pytest.fixture
def config(config_file, monkeypatch):
    """Return a configuration of 32 steps that train the head alone, on one device: checkpoints of eight take long."""
    mesh = Mesh(np.array(jax.devices()[:1]), (AXIS,))
    monkeypatch.setattr("bloodcell_jax.run.create.create_parallel", lambda backend, *_: DataParallel(backend, mesh))
    config = runpy.run_path(str(config_file))["get_config"]()
    config.stages = [config.stages[0]]
    config.stages[0].steps = 32
    config.stages[0].optimizer.learning_rate = 1e-3
    # The batch then holds an offset of the logits, which is where the tests put their bad numbers.
    config.train.logit_adjustment = "natural"
    config.train.log_every, config.train.evaluate_every, config.train.checkpoint_every = 5, 16, 8
    return config


@pytest.fixture
def poison(monkeypatch):
    """Return a function that gives the first example of the batches of some steps an offset of its logits."""
    offsets = Run._logit_offsets

    def poison(value, *steps):
        def poisoned(run, positions):
            given = offsets(run, positions)
            for step in steps:
                given[positions == (step - 1) * run.config.train.batch_size] += np.float32([0, 1, 2]) * value
            return given

        monkeypatch.setattr(Run, "_logit_offsets", poisoned)

    return poison


@pytest.fixture
def train(train_loop):
    """Return a function that trains a configuration in a folder, from its last checkpoint on, and returns the run."""

    def train(config, folder):
        run = create_run(copy.deepcopy(config))
        train_loop(run, folder)
        return run

    return train


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def final_state(run, folder):
    with contextlib.closing(Checkpoints(folder / "checkpoints", read_only=True)) as checkpoints:
        like = run.tree_shapes(run.stages[-1])
        return checkpoints.restore(checkpoints.folders.steps()[-1], like)


def cut(folder, step):
    """Take away the checkpoints after a step, as if the run had been killed before they were saved."""
    for path in (folder / "checkpoints").iterdir():
        if int(path.name) > step:
            path.rename(folder / f"gone{path.name}")


def test_skipped_steps_are_counted_and_named_and_a_resumed_run_counts_on(config, poison, tmp_path, capsys, train):
    poison(NAN, 3, 11, 12, 27)
    config.train.keep_last = 9
    run = train(config, tmp_path / "run")
    found = lines_of(tmp_path / "run" / "bad_steps.jsonl")
    assert [(line["step"], line["reason"], line["loss"]) for line in found] == [
        (step, "loss", None) for step in (3, 11, 12, 27)
    ]
    for line in found:
        assert line["ids"] == [run.dataset.ids[i] for i in run.examples_of(line["step"] - 1)]
        assert len(line["ids"]) == 16
    log = {line["step"]: line["skipped_steps"] for line in lines_of(tmp_path / "run" / "metrics.jsonl")}
    assert [log[step] for step in (5, 10, 15, 16, 20, 30, 32)] == [1, 1, 3, 3, 3, 4, 4]
    # The rate of a line is that of the updates that were made, not of the steps.
    schedule, lines = run.stages[0].schedule, lines_of(tmp_path / "run" / "metrics.jsonl")
    made = {5: 3, 10: 8, 15: 11, 20: 16, 30: 25}
    rates = {line["step"]: line["lr"] for line in lines if line["step"] in made}
    assert rates == pytest.approx({step: float(schedule(count)) for step, count in made.items()})
    said = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert [re.match(r"step (\d+)/32 ", line)[1] for line in said] == ["3", "11", "12", "27"]
    assert found[0]["ids"][0] in said[0]

    expected = final_state(run, tmp_path / "run")
    before = (tmp_path / "run" / "bad_steps.jsonl").read_bytes()
    cut(tmp_path / "run", 8)
    train(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, final_state(run, tmp_path / "run"), expected)
    assert (tmp_path / "run" / "bad_steps.jsonl").read_bytes() == before
    assert {line["step"]: line["skipped_steps"] for line in lines_of(tmp_path / "run" / "metrics.jsonl")} == log


@pytest.mark.parametrize(("most", "log_every"), [(0, 5), (2, 100)])
def test_a_run_ends_after_one_more_than_it_may_skip(config, poison, tmp_path, most, log_every, train):
    poison(NAN, *([3] if most else []), *range(11, 12 + most), 30)
    config.train.log_every, config.train.max_bad_steps = log_every, most
    with pytest.raises(DivergedError) as caught:
        train(config, tmp_path / "run")
    first, last = 11, 11 + most
    message = str(caught.value)
    assert message.startswith(f"steps {first} to {last}: " if most else f"step {first}: ")
    assert f"{tmp_path / 'run' / 'checkpoints' / '8'} is the last checkpoint, of step 8" in message
    assert "--config.train.max_bad_steps" in message
    assert str(tmp_path / "run" / "bad_batch.npz") in message
    assert "\n" not in message
    assert [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()] == [8]
    assert [line["step"] for line in lines_of(tmp_path / "run" / "bad_steps.jsonl")][-1] == last
    assert all(line["step"] <= last for line in lines_of(tmp_path / "run" / "metrics.jsonl"))

    run = create_run(copy.deepcopy(config))
    with np.load(tmp_path / "run" / "bad_batch.npz", allow_pickle=False) as batch:
        examples = run.examples_of(first - 1)
        assert batch["step"] == first
        np.testing.assert_array_equal(batch["images"], run.dataset.images[examples])
        np.testing.assert_array_equal(batch["labels"], run.dataset.labels[examples])
        assert batch["ids"].tolist() == [run.dataset.ids[i] for i in examples]
        assert batch["class_names"].tolist() == ["red", "green", "blue"]

    # What the message says: with a larger limit the run goes on from the checkpoint past the bad batches.
    if most:
        config.train.max_bad_steps = 20
        train(config, tmp_path / "run")
        assert max(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()) == 32


def test_a_spike_is_skipped_where_a_guard_looks_for_it(config, poison, tmp_path, train):
    poison(1e4, 26)
    config.train.keep_last = 9
    config.train.spike_sigma = 6.0
    run = train(config, tmp_path / "run")
    (line,) = lines_of(tmp_path / "run" / "bad_steps.jsonl")
    assert (line["step"], line["reason"]) == (26, "spike")
    assert line["loss"] > 100
    expected = final_state(run, tmp_path / "run")
    assert np.isfinite(expected["progress"]["losses"]).sum() == 31
    cut(tmp_path / "run", 24)
    train(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, final_state(run, tmp_path / "run"), expected)


def test_a_poisoned_image_costs_the_steps_that_show_it(config, tmp_path, train):
    """Under a std so small that white is beyond float32 and black is not."""
    images, labels = np.zeros((120, 32, 32, 3), np.uint8), np.arange(120) % 3
    images[7, ::2] = 255
    np.savez(tmp_path / "cells.npz", images=images, labels=labels)
    config.data.source, config.data.group_duplicates = f"npz:{tmp_path / 'cells.npz'}", False
    config.data.splits = (0.8, 0.1, 0.1)
    config.model = ModelConfig(variant="custom_cnn", dtype="float32", mean=(0.0,) * 3, std=(2e-38,) * 3)
    config.augment.policy, config.train.logit_adjustment = "d4", "none"
    config.stages[0].steps = 16
    run = train(config, tmp_path / "run")
    found = lines_of(tmp_path / "run" / "bad_steps.jsonl")
    assert len(found) > 1
    assert [line["step"] for line in found] == [step for step in range(1, 17) if "7" in run.ids_of(step - 1)]
    assert all("7" in line["ids"] and line["reason"] == "loss" for line in found)
