"""A run adapted to the cells of another laboratory with few labels."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bloodcell_jax as bc
from bloodcell_jax import cli
from bloodcell_jax.config import validate
from bloodcell_jax.data.geometry import View
from bloodcell_jax.errors import UsageError
from bloodcell_jax.run.before_and_after import before_and_after, evaluate_start, forced_choice, start_of
from bloodcell_jax.run.create import check_blocks, create_augmentation, create_run
from bloodcell_jax.run.environment import describe_environment
from bloodcell_jax.run.seen_by_start import seen_by_start, seen_sentence
from bloodcell_jax.weights import read_weights_info
from bloodcell_jax.weights.model_file import read_model_file, write_model_file
from bloodcell_jax.workdir import Workdir

CONFIG = Path(__file__).parents[2] / "configs" / "adapt.py"
ADAPT = runpy.run_path(str(CONFIG))


@pytest.fixture(scope="module")
def lab(cells, tmp_path_factory):
    """Return an npz of the same cells from a lab that stains in other colors and orders its classes otherwise."""
    path = tmp_path_factory.mktemp("lab") / "lab.npz"
    with np.load(cells) as arrays:
        np.savez(path, images=np.roll(arrays["images"], 1, axis=-1), labels=2 - arrays["labels"])
    return path


@pytest.fixture(scope="module")
def adapted(trained, lab, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("adapted") / "run"
    command = ["bloodcell", "train", f"--config={CONFIG}:{trained}", f"--workdir={workdir}"]
    command += [f"--config.data.source=npz:{lab}", "--config.data.class_names=('Blue','green','red')"]
    command += ["--config.data.samples_per_class=5", "--config.stages[0].steps=40", "--config.stages[1].steps=4"]
    # A head alone compiles in little time.
    command += ["--config.stages[1].trainable=('head.*','!.*')", "--config.evaluate.explain=0"]
    assert cli.main([*command, "--config.stages[0].optimizer.learning_rate=0.02"]) == 0
    return workdir


def test_it_gains_and_shows_what_it_gained(adapted):
    folder = Workdir(adapted).evaluation("test")
    before, after = (json.loads(path.read_text()) for path in (folder.before, folder.metrics))
    assert before["n"] == after["n"] == 18
    assert before["accuracy"] < 0.5 < after["accuracy"] - 0.2
    page = (adapted / "report" / "index.html").read_text()
    assert "Before and after on test" in page
    table = before_and_after(before, after).splitlines()
    assert [line.split()[0] for line in table] == ["before", "accuracy", "macro", "F1", "F1", "F1"]
    assert table[1].split()[1:] == [f"{100 * metrics['accuracy']:.1f}" for metrics in (before, after)]


def test_held_out_images_that_the_start_learned_from_are_counted(trained, cells):
    config = Workdir(trained).read_config()
    config.model = replace(config.model, weights=str(trained))
    assert seen_by_start(create_run(config)) == {}
    config.data = replace(config.data, split_seed=config.seed + 1)
    run = create_run(config)
    learned = Workdir(trained).read_splits()["train"]
    seen = {name: len(np.intersect1d(run.splits[name], learned)) for name in ("val", "test")}
    assert seen_by_start(run) == seen
    assert seen["test"] > 0
    assert f"{seen['test']} of {len(run.splits['test'])} test images" in seen_sentence(run)
    assert seen_sentence(run) in describe_environment(run)["data"]["notes"]


def test_held_out_images_that_a_start_from_a_file_learned_from_are_counted(trained, cells):
    path = Path(trained) / "model.safetensors"
    config = Workdir(trained).read_config()
    config.model, config.data.split_seed = replace(config.model, weights=str(path)), config.seed + 1
    run = create_run(config)
    learned = np.intersect1d(run.splits["test"], Workdir(trained).read_splits()["train"])
    found = evaluate_start(run, run.dataset.images, "test", path)
    assert found["seen_in_training_at_least"] == len(learned) > 0


def test_epochs_of_a_stage_of_steps_are_refused(trained, tmp_path, capsys):
    command = ["bloodcell", "train", f"--config={CONFIG}:{trained}", f"--workdir={tmp_path / 'run'}", "--dry_run"]
    assert cli.main([*command, "--config.stages[1].epochs=2"]) == 2
    said = capsys.readouterr().err
    assert all(text in said for text in ("stages[1].epochs=2", "steps=60", "steps=none"))


def test_training_sees_no_more_labels_than_were_asked_for(trained, lab):
    config = ADAPT["get_config"](str(trained))
    config.data.source, config.data.samples_per_class = f"npz:{lab}", 5
    from bloodcell_jax.run.data_summary import unused_labels

    run = create_run(config)
    assert [len(own) for own in run.sampler.members] == [5, 5, 5]
    seen = np.unique(run.sampler.indices(0, run.total_steps * config.train.batch_size))
    assert sorted(seen) == sorted(np.concatenate(run.sampler.members))
    assert "15 of 84 labels" in unused_labels(run)


def test_a_model_of_files_of_known_scale_asks_for_the_scale_of_others(trained, lab, tmp_path):
    params, record = read_model_file(trained / "model.safetensors")
    scaled = replace(record.config, data=replace(record.config.data, microns_per_pixel=0.05))
    path = tmp_path / "scaled.safetensors"
    write_model_file(path, params, replace(record, config=scaled), read_weights_info(trained, "test_convnext"))
    rng = np.random.default_rng(0)
    for name in "rgb":
        (tmp_path / "files" / name).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(
                tmp_path / "files" / name / f"{i}.png"
            )
    config = ADAPT["get_config"](str(path))
    config.data.source = f"folder:{tmp_path / 'files'}"
    with pytest.raises(UsageError, match=r"microns_per_pixel: missing.*0\.05"):
        create_run(config)
    config.data.microns_per_pixel = 0.1
    assert create_run(config).dataset.view == View(40, 40)
    # Arrays are not cropped; but cells may have another size, so before and after are no pair.
    config.data.microns_per_pixel, config.data.source = None, f"npz:{lab}"
    config.data.class_names = ("blue", "green", "red")
    assert start_of(create_run(config)) is None


def test_it_leaves_a_model_of_its_own(adapted, lab):
    classifier = bc.Classifier.from_file(adapted / "model.safetensors")
    assert classifier.class_names == ("Blue", "green", "red")
    assert classifier.config.data.image_size == 32


@pytest.mark.parametrize("form", ["run", "run/model.safetensors"])
def test_the_configuration_takes_a_workdir_or_a_file(trained, form):
    config = ADAPT["get_config"](str(trained.parent / form))
    validate(config)
    assert (config.model.variant, config.data.image_size) == ("test_convnext2", 32)
    for devices in (1, 2):
        check_blocks(create_augmentation(config), config.train.batch_size, devices)
    assert "--config=adapt:" in ADAPT["__doc__"]


@pytest.mark.parametrize(
    ("argument", "code", "words"), [("", 2, "adapt:runs/pbc"), (":{cells}", 3, "not a weights file")]
)
def test_what_is_no_run_is_refused(cells, tmp_path, capsys, argument, code, words):
    text = tmp_path / "cells.csv"
    text.write_text("file,label")
    flags = [f"--config={CONFIG}{argument.format(cells=text)}", f"--workdir={tmp_path / 'run'}"]
    assert cli.main(["bloodcell", "train", *flags]) == code
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_class_that_the_start_does_not_know_is_never_its_choice():
    given = np.array([[0.7, 0.2, 0.1], [0.0, 0.9, 0.1]])
    chosen = forced_choice(given, ("a", "b", "c"), ("C", "new", "b"))
    np.testing.assert_allclose(chosen, [[1 / 3, 0, 2 / 3], [0.1, 0, 0.9]])
