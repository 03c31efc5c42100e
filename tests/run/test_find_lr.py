"""The verb find_lr: a stage's own step at rising rates, its file and page, and a workdir that a run can use then."""

import json
import re
import runpy

import numpy as np
import pytest

from bloodcell_jax import cli
from bloodcell_jax.config import Config, DataConfig, ModelConfig, StageConfig
from bloodcell_jax.config.stage_names import unique_names
from bloodcell_jax.errors import UsageError
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.find_lr import Range, stage_number
from bloodcell_jax.train.range_test import read_off, smoothed
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.own_files import check_own, delete_run

STEPS = 40


@pytest.fixture(scope="module")
def folder(config_file, tmp_path_factory):
    """The folder of a test of the stage of the head, whose six steps are fewer than those of the test."""
    folder = tmp_path_factory.mktemp("find_lr") / "rates"
    rates = ["--lowest=1e-4", "--highest=1e4", f"--steps={STEPS}"]
    assert cli.main(["bloodcell", "find_lr", f"--config={config_file}", f"--workdir={folder}", *rates]) == 0
    return Workdir(folder)


@pytest.fixture(scope="module")
def results(folder):
    return json.loads(folder.find_lr.read_text())


def test_it_tries_the_rates_until_the_loss_diverges(results):
    count = len(results["rates"])
    assert 20 < count < STEPS
    assert results["diverged"]
    np.testing.assert_allclose(results["rates"], np.geomspace(1e-4, 1e4, STEPS)[:count], rtol=1e-3)
    assert results["stage"] == {"number": 0, "name": "head"}
    np.testing.assert_allclose(results["smoothed"], smoothed(results["losses"]))
    found = read_off(results["rates"], results["losses"], STEPS)
    assert (results["valley"], results["suggestion"]) == (found.valley, found.steepest)


@pytest.mark.exhaustive  # It compiles another step.
def test_its_step_is_that_of_the_run(results, config_file, run_steps):
    """The first loss is the run's own, on its first batch and with its first weights."""
    run = create_run(runpy.run_path(str(config_file))["get_config"]())
    losses = [float(metrics["train/loss"]) for metrics in run_steps(run, 1)[0]]
    np.testing.assert_allclose(results["losses"][:1], losses, rtol=1e-5)


def test_the_page_says_what_to_do(folder, results):
    page = folder.find_lr_page.read_text()
    assert f"--config.stages[0].optimizer.learning_rate={results['suggestion']:.2g}" in page
    assert "<svg" in page
    assert "&lt;svg" not in page
    assert not re.search(r"(src|href)=\"http", page)


def test_a_run_can_begin_in_the_folder_and_overwrite_deletes_both_files(folder):
    check_own(folder)
    assert not folder.config.exists()
    assert not folder.checkpoints.exists()
    delete_run(folder)
    assert not folder.find_lr.exists()
    assert not folder.find_lr_page.exists()


def test_a_stage_is_named_by_its_name_or_number():
    config = Config(stages=[StageConfig(name=name, steps=1) for name in ("head", "all", "1", "twice", "twice")])
    assert [stage_number(config, stage) for stage in (None, "head", "all", "1", "0", "4")] == [0, 0, 1, 2, 0, 4]
    for stage, words in (
        ("tail", r"tail: no such stage; .*0 \(head\), 1 \(all\)"),
        ("twice", "give its number"),
        ("5", "no such"),
    ):
        with pytest.raises(UsageError, match=words):
            stage_number(config, stage)


@pytest.mark.parametrize(("lowest", "highest"), [(0.0, 1.0), (1e-2, 1e-3), (-1.0, 1.0), (1.0, np.inf)])
def test_rates_that_do_not_rise_are_refused(lowest, highest):
    with pytest.raises(UsageError, match="--lowest"):
        Range(lowest, highest)


def test_stages_of_one_name_get_numbers():
    names = ["train", "head", "train", "train"]
    assert unique_names(names) == ["train", "head", "train (2)", "train (3)"]
    config = Config(
        data=DataConfig(source="synthetic:80", image_size=32),
        model=ModelConfig(variant="test_convnext2"),
        stages=[StageConfig(name=name, steps=1) for name in names],
    )
    assert [stage.name for stage in create_run(config).stages] == unique_names(names)
