"""The model that a finished run leaves, and what the next run takes from it."""

import dataclasses
import json
import logging
import os
import shutil
import stat

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from bloodcell_jax import cli
from bloodcell_jax.config import Config, DataConfig, ModelConfig
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.finished_model import complete_model
from bloodcell_jax.run.job import train_and_evaluate
from bloodcell_jax.weights import load_weights, read_weights_info
from bloodcell_jax.weights.calibration import PREFIX, calibration_values
from bloodcell_jax.weights.model_file import read_model_file, read_model_record, write_model_file
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.checkpoint_folders import CheckpointFolders


@pytest.fixture
def copied(trained, tmp_path):
    """Return a copy of the workdir without its model, as an earlier version left it."""
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    (workdir / "model.safetensors").unlink()
    return workdir


def test_it_says_what_the_run_was(trained):
    _, record = read_model_file(trained / "model.safetensors")
    best = max(
        (line for line in Workdir(trained).read_metrics() if "val/f1_macro" in line),
        key=lambda line: (line["val/f1_macro"], -line["step"]),
    )
    assert record.step == best["step"]
    assert record.metrics["val/f1_macro"] == best["val/f1_macro"]
    info = read_weights_info(trained)
    assert (info.variant, info.num_classes, info.input_size) == ("test_convnext2", 3, 32)
    assert info.class_names == ("red", "green", "blue")
    assert (info.norm_eps, info.activation) == (1e-5, "gelu_tanh")
    assert record.version


def assert_same_calibration(ours, theirs):
    """Compare two calibrations of one checkpoint, by other numbers of devices: sums run in another order."""
    (values, tensors), (other_values, other_tensors) = (calibration_values(each) for each in (ours, theirs))
    assert values == {name: pytest.approx(value, rel=1e-3, abs=1e-4) for name, value in other_values.items()}
    for name in ("features", "mean"):
        np.testing.assert_allclose(tensors[PREFIX + name], other_tensors[PREFIX + name], rtol=1e-2, atol=1e-3)


def test_the_same_command_writes_a_model_that_is_missing(trained, copied):
    train_and_evaluate(Workdir(copied).read_config(), copied)
    (ours, record), (theirs, other) = (read_model_file(folder / "model.safetensors") for folder in (copied, trained))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert_same_calibration(record.calibration, other.calibration)


def test_the_same_command_calibrates_the_model_of_an_earlier_version(trained, copied, caplog):
    path, (params, record) = copied / "model.safetensors", read_model_file(trained / "model.safetensors")
    write_model_file(path, params, dataclasses.replace(record, calibration=None), read_weights_info(trained))
    scores = json.loads((copied / "eval/test/metrics.json").read_text())
    old = {name: value for name, value in scores.items() if name not in ("temperature", "calibration")}
    (copied / "eval/test/metrics.json").write_text(json.dumps(old))
    for load in (Classifier.from_workdir, Classifier.from_file):
        caplog.clear()
        classifier = load(copied if load == Classifier.from_workdir else path)
        (said,) = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
        assert "model.safetensors: " in said
        assert "temperature 1" in said
        answers = classifier.answer(np.full((1, 32, 32, 3), 9, np.uint8) + np.arange(32, dtype=np.uint8)[:, None, None])
        assert answers[1:] == (None, None, None)
    train_and_evaluate(Workdir(copied).read_config(), copied)
    assert_same_calibration(read_model_file(path)[1].calibration, record.calibration)
    again = json.loads((copied / "eval/test/metrics.json").read_text())
    assert again["temperature"] == scores["temperature"]


def test_what_val_said_of_the_best_checkpoint_is_not_said_of_another(trained, caplog):
    best = read_model_record(trained / "model.safetensors")
    classifier = Classifier.from_workdir(trained)
    assert (classifier.step, classifier.calibration.temperature) == (best.step, best.calibration.temperature)
    assert not [entry for entry in caplog.records if entry.levelname == "WARNING"]
    other = next(step for step in CheckpointFolders(trained / "checkpoints").steps() if step != best.step)
    classifier = Classifier.from_workdir(trained, checkpoint=str(other))
    assert classifier.calibration is None
    (said,) = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
    assert f"step {other}: " in said
    assert f"of step {best.step}," in said


def test_a_damaged_model_is_named_and_not_taken_for_one_without_calibration(trained, copied):
    content = bytearray((trained / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copied / "model.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"model\.safetensors: damaged"):
        Classifier.from_workdir(copied)


def test_no_file_of_a_run_is_closed_to_others(trained):
    umask = os.umask(0)
    os.umask(umask)
    closed = [path for path in trained.rglob("*") if stat.S_IMODE(path.stat().st_mode) & 0o044 != 0o044 & ~umask]
    assert closed == []


def test_convert_takes_a_workdir_of_an_earlier_version(trained, copied, tmp_path):
    target = tmp_path / "model.safetensors"
    assert cli.main(["bloodcell", "convert", f"--input={copied}", f"--output={target}"]) == 0
    (ours, record), (theirs, other) = (read_model_file(path) for path in (target, trained / "model.safetensors"))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    # Without the data, val can be asked nothing.
    assert (record.calibration, record.step, record.config) == (None, other.step, other.config)


def test_an_unfinished_run_is_no_start(copied):
    # As a run leaves it that goes on with more steps, until it ends.
    environment = json.loads((copied / "environment.json").read_text()) | {"steps": 50}
    assert environment.pop("steps_trained") == 36
    (copied / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(DataError, match=r"\b36 of 50\b"):
        complete_model(copied)
    with pytest.raises(DataError, match=r"a folder without model\.safetensors"):
        read_weights_info(copied)


def started(trained, cells, class_names, **model):
    """Return the configuration of a run that starts from another one."""
    return Config(
        data=DataConfig(source=f"npz:{cells}", image_size=32, class_names=class_names),
        model=ModelConfig(variant="test_convnext2", weights=str(trained), dtype="float32", **model),
    )


def test_rows_of_the_head_follow_the_names_of_the_classes(trained, cells, caplog):
    taken, _ = read_model_file(trained / "model.safetensors")
    with caplog.at_level(logging.WARNING):
        run = create_run(started(trained, cells, ("Blue", "violet", "red")))
        params = flatten_dict(run._initial_params(), sep="/")
    assert "taken over Blue, red; drawn anew violet; left behind green" in caplog.text
    for name, value in flatten_dict(taken, sep="/").items():
        if name.startswith("head/"):
            np.testing.assert_array_equal(params[name][..., [2, 0]], value[..., [0, 2]])
            assert not np.isin(params[name][..., 1], value).any() or name == "head/bias"
        else:
            np.testing.assert_array_equal(params[name], value)
    assert params["head/bias"][1] == 0
    # Names decide, even if the number of classes is the same and none is known.
    anew = flatten_dict(load_weights(trained, run.model, class_names=("a", "b", "c")), sep="/")
    assert not anew["head/bias"].any()


def test_the_start_decides_statistics_and_stem(trained, cells, tmp_path):
    source = shutil.copy(trained / "model.safetensors", tmp_path / "start.safetensors")
    assert create_run(started(source, cells, ())).config.model.mean == (0.485, 0.456, 0.406)
    with pytest.raises(UsageError, match=r"config\.model\.mean=\(0\.5, 0\.5, 0\.5\)"):
        create_run(started(source, cells, (), mean=(0.5, 0.5, 0.5)))
    run = create_run(started(source, cells, ()))
    finer = dataclasses.replace(run.weights_info, stem_stride=2)
    from bloodcell_jax.run.create import resolve

    assert resolve(started(source, cells, ()), run.dataset, finer).model.stem_stride == 2
