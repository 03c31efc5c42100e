"""The model that a finished run leaves, and what the next run takes from it."""

import dataclasses
import json
import logging
import os
import shutil
import stat

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from bloodcell_jax import cli
from bloodcell_jax.config import Config, DataConfig, ModelConfig
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.finished_model import complete_model
from bloodcell_jax.run.job import train_and_evaluate
from bloodcell_jax.weights import load_weights, read_weights_info
from bloodcell_jax.weights.model_file import read_model_file
from bloodcell_jax.workdir import Workdir


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


def test_the_same_command_writes_a_model_that_is_missing(trained, copied):
    train_and_evaluate(Workdir(copied).read_config(), copied)
    assert (copied / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_no_file_of_a_run_is_closed_to_others(trained):
    umask = os.umask(0)
    os.umask(umask)
    closed = [path for path in trained.rglob("*") if stat.S_IMODE(path.stat().st_mode) & 0o044 != 0o044 & ~umask]
    assert closed == []


def test_convert_takes_a_workdir_of_an_earlier_version(trained, copied, tmp_path):
    target = tmp_path / "model.safetensors"
    assert cli.main(["bloodcell", "convert", f"--input={copied}", f"--output={target}"]) == 0
    assert target.read_bytes() == (trained / "model.safetensors").read_bytes()


def test_an_unfinished_run_is_no_start(copied):
    environment = json.loads((copied / "environment.json").read_text())
    (copied / "environment.json").write_text(json.dumps(environment | {"steps": 50}))
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
