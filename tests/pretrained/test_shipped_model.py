"""The models that come with the library: they are whole, are found by name, and predict as their card says."""

import configparser
import csv
import hashlib
import json
import os
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image
from safetensors.numpy import load_file

import bloodcell_jax as bc
from bloodcell_jax import cli
from bloodcell_jax.config import Config, DataConfig, ModelConfig, StageConfig
from bloodcell_jax.data.synthetic import CLASS_NAMES, draw_cells
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.pretrained import SHIPPED
from bloodcell_jax.run.create import create_run, resolve
from bloodcell_jax.weights.calibration import PREFIX
from bloodcell_jax.weights.model_file import read_model_file, read_model_info
from bloodcell_jax.weights.named_models import find_model

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
FILE = SHIPPED["pbc_atto"]
CARD = FILE.with_name("README.md")
RESULTS = {
    name: json.loads((ROOT / "benchmarks" / "results" / f"{name.replace('_', '-')}.json").read_text())
    for name in SHIPPED
}
for_every_model = pytest.mark.parametrize("name", SHIPPED)


@for_every_model
def test_the_file_is_the_one_that_was_measured(name):
    content = SHIPPED[name].read_bytes()
    assert len(content) == RESULTS[name]["bytes"] <= 8_000_000
    assert hashlib.sha256(content).hexdigest() == RESULTS[name]["sha256"]
    tensors = {name: tensor for name, tensor in load_file(SHIPPED[name]).items() if not name.startswith(PREFIX)}
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float16)}


@for_every_model
def test_it_says_what_a_prediction_and_a_license_need(name):
    (record, info), results = read_model_info(SHIPPED[name]), RESULTS[name]
    assert record.config.data.class_names == info.class_names == CLASS_NAMES
    assert (info.licence, record.step) == ("CC-BY-4.0", results["step"])
    assert "Acevedo" in info.source
    assert not any(mark in info.source for mark in ("zip:", "/tmp", "folder:"))
    assert record.view == {"shorter_side": 360, "side": 200}  # PBC's published files fit it, without a warning.
    calibration = record.calibration
    assert (calibration.examples, len(calibration.reference.features)) == (results["val"]["n"], results["features"])
    right = 1 - calibration.errors / calibration.examples
    assert right == pytest.approx(results["val"]["file"]["accuracy"], abs=1e-9)
    assert record.metrics["val/accuracy"] == pytest.approx(right, abs=1e-9)


@for_every_model
def test_its_card_states_the_numbers_that_were_measured(name):
    card = CARD.read_text().split(f"<!-- scores of {name}:")[1].split(f"<!-- end of scores of {name}")[0]
    measured = RESULTS[name]["val"]
    for score in ("accuracy", "balanced_accuracy", "f1_macro"):
        assert f"| {measured['file'][score]:.4f} | {measured['run'][score]:.4f} |" in card
    for class_name, scores in measured["file"]["per_class"].items():
        assert f"| {class_name} | {scores['support']} | {scores['recall']:.3f} |" in card


def test_they_are_installed_with_their_card():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["bloodcell_jax.pretrained"].split(", ")
    assert all(any(path.match(pattern) for pattern in patterns) for path in (*SHIPPED.values(), CARD))


@for_every_model
def test_predict_takes_it_by_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("images")
    images, _ = draw_cells(3, size=96)
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    for letter, image in zip("abc", [*images[:2], noise], strict=True):
        Image.fromarray(image).save(f"images/{letter}.png")
    assert cli.main(["bloodcell", "predict", f"--model={name}", "--input=images", "--output=cells.csv"]) == 0
    rows = list(csv.DictReader(Path("cells.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == ["a.png", "b.png", "c.png"]
    for row in rows:
        probabilities = [float(row[class_name]) for class_name in CLASS_NAMES]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == CLASS_NAMES[int(np.argmax(probabilities))]
    assert rows[2]["known"] == "false"


@for_every_model
def test_python_takes_it_by_its_name(name):
    classifier = bc.Classifier.from_pretrained(name)
    assert (classifier.class_names, classifier.workdir, classifier.file) == (CLASS_NAMES, None, SHIPPED[name])
    with pytest.raises(UsageError, match="pbc_atto"):
        bc.Classifier.from_pretrained("pbc_tiny")


@for_every_model
def test_a_run_starts_from_it(name, tmp_path, caplog):
    """The rows of the head go by class name, here in the opposite order; the rest is the file's."""
    record, info = read_model_info(SHIPPED[name])
    size = info.input_size
    images, labels = draw_cells(80, size=size)
    np.savez(tmp_path / "cells.npz", images=images, labels=labels)
    data = DataConfig(source=f"npz:{tmp_path / 'cells.npz'}", image_size=size, class_names=CLASS_NAMES[::-1])
    config = Config(
        data=data,
        model=replace(record.config.model, weights=name, num_classes=None),
        stages=[StageConfig(steps=1)],
    )
    run = create_run(config)
    assert "learned from images of" not in caplog.text
    resolve(replace(config, data=replace(data, image_size=2 * size)), run.dataset, run.weights_info)
    assert f"{name}: learned from images of {size} px, and sees {2 * size} px" in caplog.text
    assert (run.weights_info.class_names, run.weights_info.licence) == (CLASS_NAMES, "CC-BY-4.0")
    loaded = bc.load_weights(name, run.model, class_names=run.dataset.class_names)
    loaded, stored = (flatten_dict(params, sep="/") for params in (loaded, read_model_file(SHIPPED[name])[0]))
    assert loaded.keys() == stored.keys()
    order = [CLASS_NAMES.index(name) for name in run.dataset.class_names]
    for path, leaf in stored.items():
        expected = leaf[..., order] if path.startswith("head/") else leaf
        np.testing.assert_array_equal(loaded[path], expected)


def test_a_file_of_the_same_name_is_refused_and_both_are_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("pbc_atto").write_bytes(b"mine")
    commands = (
        ["predict", "--model=pbc_atto", "--input=x.png", "--output=y.csv"],
        ["evaluate", "--model=pbc_atto", "--source=folder:x", "--output=y"],
        ["export", "--model=pbc_atto", "--format=safetensors", "--output=y"],
        ["convert", "--input=pbc_atto", "--output=y.safetensors"],
    )
    for command in commands:
        assert cli.main(["bloodcell", *command]) == 2
        said = capsys.readouterr().err
        assert "comes with the library" in said
        assert str(tmp_path / "pbc_atto") in said
    with pytest.raises(DataError, match="not a weights file"):
        bc.read_weights_info(tmp_path / "pbc_atto")


@for_every_model
def test_a_run_of_the_same_name_is_refused_by_adapt(name, tmp_path, monkeypatch):
    get_config = runpy.run_path(str(ROOT / "configs" / "adapt.py"))["get_config"]
    monkeypatch.chdir(tmp_path)
    assert get_config(name).data.image_size == read_model_info(SHIPPED[name])[0].config.data.image_size
    os.mkdir(name)
    Path(name, "config.json").write_text("{}")
    with pytest.raises(UsageError, match="comes with the library"):
        get_config(name)


@pytest.mark.parametrize("workdir", ["pbc_atto", "pbc_atto/first"])
def test_a_run_from_it_may_not_hide_it(workdir, tmp_path, monkeypatch):
    """The command that resumes such a run would name the run's own folder."""
    monkeypatch.chdir(tmp_path)
    config = Config(data=DataConfig(source="synthetic:80"), model=ModelConfig(weights="pbc_atto"))
    with pytest.raises(UsageError, match="choose another name"):
        bc.train_and_evaluate(config, workdir)
    assert not os.listdir()


def test_a_misspelt_name_is_answered_with_those_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=", ".join(SHIPPED)):
        find_model("pbc_ato")
    with pytest.raises(DataError, match="pbc_atto"):
        bc.read_weights_info("pbc_ato")
    assert find_model("runs/pbc_ato") == Path("runs/pbc_ato")


@for_every_model
@pytest.mark.real
@pytest.mark.skipif(not (DATA / "pbc96.zip").exists(), reason="no real cells in ../shared/data")
def test_its_accuracy_on_real_cells_is_the_one_of_its_card(name, tmp_path):
    command = ["bloodcell", "evaluate", f"--model={name}", f"--source=zip:{DATA / 'pbc96.zip'}", "--split=val"]
    assert cli.main([*command, f"--output={tmp_path / 'val'}", "--explain=0"]) == 0
    metrics, expected = json.loads((tmp_path / "val" / "metrics.json").read_text()), RESULTS[name]["val"]
    assert metrics["n"] == expected["n"]
    # An answer or two may turn on another processor.
    assert metrics["accuracy"] == pytest.approx(expected["file"]["accuracy"], abs=2.5 / expected["n"])
