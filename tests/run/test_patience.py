"""A run that waits for a better val: its rate falls, it ends early, and a resumed one decides the same."""

import json
import shutil

import pytest
from jax.stages import Compiled

from bloodcell_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
)
from bloodcell_jax.devices.parallel import DataParallel
from bloodcell_jax.run.job import train_and_evaluate
from bloodcell_jax.train.plateaus import evaluations_since_best, plateau_scale
from bloodcell_jax.weights.model_file import read_model_record
from bloodcell_jax.workdir import Workdir

STEPS, PATIENCE = 9, 2
RATE = OptimizerConfig(
    name="adamw", learning_rate=1e-2, schedule="plateau", plateau_factor=0.5, plateau_patience=1, warmup_steps=3
)


def config_of(cells, early_stop):
    return Config(
        data=DataConfig(source=f"npz:{cells}", image_size=32, class_names=("red", "green", "blue")),
        model=ModelConfig(variant="test_convnext2", dtype="float32"),
        augment=AugmentConfig(policy="none"),
        stages=[
            StageConfig(name="first", steps=2, trainable=("head/bias", "!.*"), optimizer=OptimizerConfig(b1=0.8)),
            StageConfig(name="head", steps=STEPS - 2, trainable=("head/.*", "!.*"), optimizer=RATE),
        ],
        train=TrainConfig(
            batch_size=16, log_every=1, evaluate_every=1, best_metric="val/accuracy", early_stop=early_stop, keep_last=4
        ),
        evaluate=EvaluateConfig(batch_size=32, explain=0),
    )


@pytest.fixture(scope="module")
def steps_compiled():
    """What was compiled as the step of a stage."""
    return []


@pytest.fixture(scope="module")
def ended(cells, tmp_path_factory, steps_compiled):
    """The result of a run that ended early."""
    compile_step = DataParallel.compile_step

    def spy(*arguments):
        steps_compiled.append(compile_step(*arguments))
        return steps_compiled[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(DataParallel, "compile_step", spy)
        return train_and_evaluate(config_of(cells, PATIENCE), tmp_path_factory.mktemp("patience") / "run")


def lines_of(workdir):
    lines = Workdir(workdir).read_metrics()
    return [{key: value for key, value in line.items() if not key.startswith("perf/")} for line in lines]


def test_it_ends_after_the_evaluations_that_were_asked_for(ended):
    lines = lines_of(ended.workdir)
    values = [line["val/accuracy"] for line in lines if line["stage"] == "head"]
    counts = evaluations_since_best(values, higher_is_better=True)
    assert counts[-1] == PATIENCE
    assert max(counts[:-1]) < PATIENCE
    assert ended.step == lines[-1]["step"] < STEPS
    assert json.loads((ended.workdir / "environment.json").read_text())["steps_trained"] == ended.step
    best = max(lines, key=lambda line: line["val/accuracy"])
    assert ended.best_step == best["step"] == read_model_record(ended.workdir / "model.safetensors").step
    assert f"ended early at step {ended.step} of {STEPS}" in ended.report.read_text()


def test_each_stage_is_compiled_once_though_its_rate_changes(ended, steps_compiled):
    """What is compiled ahead of time is never compiled again: it refuses arguments of another kind."""
    assert len(steps_compiled) == 2
    assert all(isinstance(step, Compiled) for step in steps_compiled)


def test_the_rate_falls_at_each_plateau_of_its_own_stage(ended):
    lines = [line for line in lines_of(ended.workdir) if line["stage"] == "head"]
    for number, line in enumerate(lines):
        values = [before["val/accuracy"] for before in lines[:number]]
        scale = plateau_scale(RATE, evaluations_since_best(values, higher_is_better=True))
        assert line["lr"] == pytest.approx(1e-2 * min(1, (number + 1) / 3) * scale)
    assert lines[-1]["lr"] < 0.6e-2


def test_a_run_killed_before_its_end_decides_the_same(cells, ended, tmp_path, capfd):
    workdir = tmp_path / "run"
    shutil.copytree(ended.workdir, workdir)
    # A kill between two checkpoints leaves no more: the two last evaluations are to be made again.
    for step in (ended.step - 1, ended.step):
        shutil.rmtree(workdir / "checkpoints" / str(step))
    again = train_and_evaluate(config_of(cells, PATIENCE), workdir)
    assert (again.step, again.best_step) == (ended.step, ended.best_step)
    assert lines_of(workdir) == lines_of(ended.workdir)
    assert f"step {ended.step}/{STEPS}  ends early: val/accuracy did not become better in {PATIENCE} evaluations" in (
        capfd.readouterr().err
    )
    train_and_evaluate(config_of(cells, PATIENCE), workdir)
    assert f"already ended early at step {ended.step} of {STEPS}" in capfd.readouterr().err


@pytest.mark.exhaustive
def test_more_patience_goes_on_as_if_it_had_never_ended(cells, ended, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(ended.workdir, workdir)
    gone_on = train_and_evaluate(config_of(cells, None), workdir)
    whole = train_and_evaluate(config_of(cells, None), tmp_path / "whole")
    assert gone_on.step == whole.step == STEPS
    assert lines_of(workdir) == lines_of(whole.workdir)
    assert gone_on.metrics["val"]["accuracy"] == whole.metrics["val"]["accuracy"]
