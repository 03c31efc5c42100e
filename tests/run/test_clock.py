"""A clock that jumps while a run trains changes none of its durations."""

import itertools
import json
import runpy
import time

import pytest

from bloodcell_jax.run.job import train_and_evaluate


@pytest.mark.faults
def test_a_clock_that_jumps_by_minutes_changes_no_duration(config_file, tmp_path, monkeypatch):
    now, jumps = time.time, itertools.cycle((0, 100, -100))
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    config = runpy.run_path(str(config_file))["get_config"]()
    config.stages = [config.stages[0]]
    began = time.monotonic()
    train_and_evaluate(config, tmp_path / "run")
    elapsed = time.monotonic() - began
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    seconds = [2 * config.train.batch_size / line["perf/images_per_second"] for line in lines]
    assert min(seconds) > 0
    assert sum(seconds) < elapsed
    assert all(0 <= line["perf/data_wait"] <= 1 for line in lines)
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert 0 < environment["seconds_trained"] < elapsed
