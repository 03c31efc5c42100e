"""A sweep: its results, what a signal costs, what is pruned, and who trains which trial."""

import csv
import json
import os
import re
import shutil
import signal

import jax
import numpy as np
import optuna
import pytest

from bloodcell_jax.errors import MemoryFullError, StoppedError, UsageError
from bloodcell_jax.run.create import create_run
from bloodcell_jax.search import sweep as module
from bloodcell_jax.search.cross_validation import cross_validate
from bloodcell_jax.search.search_space import Dimension
from bloodcell_jax.search.sweep import sweep
from bloodcell_jax.search.trials import next_trial
from bloodcell_jax.workdir import Workdir

RATE = "stages[0].optimizer.learning_rate"
SEARCH = [Dimension(f"{RATE}:loguniform:1e-4:1e-1", RATE, "loguniform", (1e-4, 1e-1))]


def study_of(workdir):
    return optuna.load_study(study_name="sweep", storage=f"sqlite:///{workdir / 'sweep.db'}")


@pytest.fixture(scope="module")
def swept(small_config, tmp_path_factory):
    """Return the workdir and the results of a sweep of two trials, whose second one a signal stopped and which went on.

    The states of the trials after the signal are returned as well.
    """
    workdir = tmp_path_factory.mktemp("sweep")
    report = module._report

    def report_and_stop(trial, folder, metric):
        report(trial, folder, metric)
        if trial.number == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_report", report_and_stop)
        with pytest.raises(StoppedError):
            sweep(small_config, workdir, SEARCH, trials=2)
    stopped = [(trial.state.name, trial.params, trial.intermediate_values) for trial in study_of(workdir).trials]
    return workdir, stopped, sweep(small_config, workdir, SEARCH, trials=2)


def test_a_stopped_trial_goes_on_where_it_was(swept):
    workdir, stopped, content = swept
    assert [state for state, _, _ in stopped] == ["COMPLETE", "RUNNING"]
    assert [trial["state"] for trial in content["trials"]] == ["complete", "complete"]
    assert content["trials"][1]["values"] == stopped[1][1]
    assert list(stopped[1][2]) == [1]
    # Each step stands once in its log, with both evaluations.
    assert [line["step"] for line in Workdir(workdir / "trials" / "1").read_metrics()] == [2, 4]


def test_results_are_those_of_the_runs(swept):
    workdir, _, content = swept
    for trial in content["trials"]:
        run = Workdir(workdir / "trials" / str(trial["number"]))
        assert run.read_config().stages[0].optimizer.learning_rate == trial["values"][RATE]
        logged = [line["val/f1_macro"] for line in run.read_metrics()]
        assert trial["value"] == max(logged)
        assert list(trial["evaluations"].values()) == logged
        assert trial["workdir"] == str(run.path)
    page = (workdir / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'href="([^"]*report[^"]*)"', page)
    assert sorted(links) == ["trials/0/report/index.html", "trials/1/report/index.html"]
    assert all((workdir / link).is_file() for link in links)
    best = max(content["trials"], key=lambda trial: trial["value"])
    assert content["best"] == best["number"]
    assert content == json.loads((workdir / "sweep.json").read_text())
    with (workdir / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val/f1_macro"]) for row in rows] == pytest.approx(
        [trial["value"] for trial in content["trials"]], abs=1e-6
    )
    assert f"The best is trial {best['number']}" in (workdir / "index.html").read_text(encoding="utf-8")


def test_another_search_or_configuration_is_refused(swept, small_config):
    other = [Dimension(f"{RATE}:loguniform:1e-5:1e-1", RATE, "loguniform", (1e-5, 1e-1))]
    with pytest.raises(UsageError, match="1e-4:1e-1"):
        sweep(small_config, swept[0], other, trials=2)
    with pytest.raises(UsageError, match=r"train\.batch_size: 16 -> 32"):
        sweep(module.with_values(small_config, {"train.batch_size": 32}), swept[0], SEARCH, trials=2)
    # A run may grow when it is resumed. A study may not: longer trials are better by that alone.
    with pytest.raises(UsageError, match=r"stages\[0\]\.steps: 4 -> 8"):
        sweep(module.with_values(small_config, {"stages[0].steps": 8}), swept[0], SEARCH, trials=2)


def test_other_data_of_the_same_name_are_refused_with_both_hashes(small_config, cells, tmp_path):
    path = tmp_path / "cells.npz"
    shutil.copy(cells, path)
    config = module.with_values(small_config, {"data.source": f"npz:{path}"})
    workdir = tmp_path / "sweep"
    sweep(config, workdir, SEARCH, trials=0)
    first = study_of(workdir).user_attrs["data_sha256"][f"npz:{path}"]
    with np.load(path) as arrays:
        changed = dict(arrays)
    changed["images"][0] ^= 1
    np.savez(path, **changed)
    with pytest.raises(UsageError, match=rf"cells\.npz had sha256 {first} and has (?!{first})[0-9a-f]{{64}}\b"):
        sweep(config, workdir, SEARCH, trials=0)
    shutil.copy(cells, path)
    sweep(config, workdir, SEARCH, trials=0)


def test_the_data_of_every_source_that_is_searched_are_known(small_config, cells, tmp_path):
    other = tmp_path / "other.npz"
    shutil.copy(cells, other)
    sources = {str(source): str(source) for source in (f"npz:{cells}", f"npz:{other}")}
    shared = module._open_study(
        module.with_values(small_config, {"data.source": None}),
        tmp_path,
        [Dimension("data.source:choice", "data.source", "choice", choices=sources)],
        None,
    )
    assert shared.study.user_attrs["data_sha256"].keys() == sources.keys()


def test_a_trial_that_is_too_large_fails_and_the_next_one_begins(small_config, tmp_path, monkeypatch):
    def train(config, workdir, **_):
        raise MemoryFullError(f"{workdir}: a step needs 99 GB")

    monkeypatch.setattr(module, "train_and_evaluate", train)
    content = sweep(small_config, tmp_path, SEARCH, trials=2)
    assert [trial["state"] for trial in content["trials"]] == ["fail", "fail"]
    assert all("99 GB" in trial["reason"] for trial in content["trials"])


def test_a_trial_below_the_median_is_pruned(small_config, tmp_path):
    study = module._open_study(small_config, tmp_path, SEARCH, None).study
    distributions = {RATE: optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)}
    for _ in range(5):  # the pruner wants five; no F1 is as high
        better = {"value": 2.0, "intermediate_values": {1: 2.0, 2: 2.0}}
        study.add_trial(optuna.trial.create_trial(params={RATE: 0.01}, distributions=distributions, **better))
    content = sweep(small_config, tmp_path, SEARCH, trials=6)
    assert content["trials"][5]["state"] == "pruned"
    # It has no report, and the page does not lead to one; the trials that no sweep trained have no folder.
    assert content["trials"][5]["workdir"] == str(tmp_path / "trials" / "5")
    assert content["trials"][0]["workdir"] is None
    assert "trials/" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert [line["step"] for line in Workdir(tmp_path / "trials" / "5").read_metrics()] == [2]


def test_the_direction_follows_the_metric(small_config, tmp_path):
    config = module.with_values(small_config, {"train.best_metric": "val/loss"})
    assert module._open_study(config, tmp_path, SEARCH, None).study.direction.name == "MINIMIZE"


def test_two_processes_train_different_trials_and_an_abandoned_one_is_taken_over(small_config, tmp_path):
    shared = module._open_study(small_config, tmp_path, SEARCH, None)

    def take():
        # Locks belong to an open file, so one process can play two.
        return next_trial(shared, 2, lambda n: module._sampler(small_config, n))

    with take() as first, take() as second, take() as third:
        assert (first.number, second.number, third) == (0, 1, None)
        value = SEARCH[0].suggest(second)
        shared.study.tell(first, 0.5)
    with take() as again:
        assert again.number == 1
        assert SEARCH[0].suggest(again) == value


def test_a_seed_that_is_searched_leaves_the_splits_as_they_are(small_config):
    configs = [module._trial_config(small_config, {"seed": seed}) for seed in (3, 4)]
    assert [config.seed for config in configs] == [3, 4]
    splits = [create_run(config).splits for config in (small_config, *configs)]
    for other in splits[1:]:
        jax.tree.map(np.testing.assert_array_equal, splits[0], other)


def test_results_of_others_are_not_overwritten(small_config, tmp_path):
    (tmp_path / "index.html").write_text("mine")
    for command in (
        lambda: sweep(small_config, tmp_path, SEARCH, trials=1),
        lambda: cross_validate(small_config, tmp_path, folds=2),
    ):
        with pytest.raises(UsageError, match=r"index\.html"):
            command()
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
