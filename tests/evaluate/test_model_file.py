"""A run's model in one file, used without its workdir."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import bloodcell_jax as bc
from bloodcell_jax import cli
from bloodcell_jax.config import Config, DataConfig, ModelConfig
from bloodcell_jax.errors import DataError
from bloodcell_jax.models.registry import build_model, init_params
from bloodcell_jax.run.finished_model import model_info
from bloodcell_jax.weights import WeightsInfo, load_weights, save_weights
from bloodcell_jax.weights.calibration import Calibration, Reference, calibration_from, calibration_values
from bloodcell_jax.weights.model_file import ModelRecord, read_model_file, write_model_file
from bloodcell_jax.weights.safetensors_file import read_safetensors, write_safetensors


@pytest.fixture(scope="module")
def model(trained, tmp_path_factory):
    """Return the model's file in a folder of its own, as a colleague gets it."""
    return shutil.copy(trained / "model.safetensors", tmp_path_factory.mktemp("colleague"))


@pytest.fixture
def image_folder(cells, tmp_path):
    with np.load(cells) as arrays:
        for i in range(0, 120, 20):
            path = tmp_path / "images" / ("red", "green", "blue")[i // 40] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(arrays["images"][i]).save(path)
    return tmp_path / "images"


def test_its_probabilities_are_those_of_the_workdir_to_the_bit(trained, model, cells):
    from_file, from_workdir = bc.Classifier.from_file(model), bc.Classifier.from_workdir(trained)
    with np.load(cells) as arrays:
        images = arrays["images"]
    np.testing.assert_array_equal(from_file.predict(images), from_workdir.predict(images))
    answers = from_file.answer(images)
    for ours, theirs in zip(answers, from_workdir.answer(images), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert answers.scores.shape == (120, 3)
    # All but a few of the run's own images are known, and no blank or striped image is.
    assert answers.known.mean() > 0.9
    stripes = np.zeros((4, 32, 32, 3), np.uint8)
    stripes[:, ::4], stripes[2:, :, ::4] = 255, 255
    assert not from_file.answer(stripes).known.any()
    assert from_file.answer(images[:0]).known.shape == (0,)
    assert from_file.class_names == from_workdir.class_names
    assert (from_file.step, from_file.workdir) == (from_workdir.step, None)
    for name in ("image_size", "crop"):
        assert getattr(from_file.config.data, name) == getattr(from_workdir.config.data, name)


def test_predict_and_evaluate_take_it(trained, model, image_folder, tmp_path):
    outputs = [tmp_path / "file.csv", tmp_path / "workdir.csv"]
    for flag, output in zip((f"--model={model}", f"--workdir={trained}"), outputs, strict=True):
        assert cli.main(["bloodcell", "predict", flag, f"--input={image_folder}", f"--output={output}"]) == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    command = ["bloodcell", "evaluate", f"--model={model}", f"--source=folder:{image_folder}"]
    assert cli.main([*command, f"--output={tmp_path / 'results'}"]) == 0
    assert (tmp_path / "results" / "predictions.csv").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["evaluate", "--model={model}"], ["--source: missing"]),
        (["evaluate", "--model={model}", "--workdir={trained}"], ["--workdir, --model", "one of them"]),
        (["evaluate"], ["--workdir: missing", "--model"]),
        (["evaluate", "--model={model}", "--checkpoint=last"], ["--checkpoint=last", "--model"]),
    ],
)
def test_flags_that_do_not_go_together(trained, model, capsys, flags, words):
    assert cli.main(["bloodcell", *(flag.format(model=model, trained=trained) for flag in flags)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert all(word in line for word in words)


def drawn(config):
    """Return parameters of a model, drawn by NumPy: nothing is compiled."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(build_model(config), jax.random.key(0), 32))
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)


def drawn_calibration():
    rng = np.random.default_rng(1)
    arrays = (rng.standard_normal(shape).astype(dtype) for shape, dtype in (((5, 4), "f2"), (3, "f4"), ((3, 3), "f4")))
    reference = Reference(*arrays, center=(1.0, 0.5, -7.25), scale=(0.1, 0.2, 3.0), threshold=1.2)
    return Calibration(18, 2, 0.7312, 0.03, 0.01, None, 0.0, reference)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0},
        {"temperature": None},
        {"temperature": "1"},
        {"errors": 19},
        {"examples": 1.5},
        {"coverage": 2.0},
        {"confidence": -0.5},
        {"scale": [1.0, 0.0, 1.0]},
        {"center": [1.0, 1.0]},
        {"threshold": float("nan")},
        {"more": 1},
    ],
)
def test_a_calibration_of_another_kind_is_refused(change):
    values, tensors = calibration_values(drawn_calibration())
    values = json.loads(json.dumps(values))
    calibration_from(values, tensors)
    with pytest.raises((KeyError, TypeError, ValueError)):
        calibration_from(values | change, tensors)
    for name in tensors:
        for wrong in (tensors[name].astype(np.float64), tensors[name][:2], tensors[name] * np.inf):
            if wrong.shape != (2, 4):  # Fewer features are a reference as well.
                with pytest.raises((TypeError, ValueError)):
                    calibration_from(values, tensors | {name: wrong})
    with pytest.raises(KeyError):
        calibration_from(values, {})


def published(path):
    """Write what `convert` makes of a published file: weights with a head for classes without names."""
    params = drawn(ModelConfig(variant="test_convnext2", num_classes=10))
    save_weights(path, params, WeightsInfo("test_convnext2", 10, source="ImageNet"))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (published, "class names"),
        (lambda path: path.write_bytes(b"cells"), "not a weights file"),
        (lambda path: None, "no such file"),
    ],
)
def test_another_file_is_refused_with_what_it_lacks(tmp_path, image_folder, capsys, write, words):
    path = tmp_path / "other.safetensors"
    write(path)
    command = ["bloodcell", "predict", f"--model={path}", f"--input={image_folder}", f"--output={tmp_path / 'a.csv'}"]
    assert cli.main(command) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert "other.safetensors: " in line
    assert words in line
    assert not (tmp_path / "a.csv").exists()


def test_a_file_whose_tensors_are_another_network_s_is_refused(model, tmp_path):
    tensors, metadata = read_safetensors(model)
    tensors.pop("stem_conv/kernel")
    path = tmp_path / "part.safetensors"
    info = WeightsInfo("test_convnext2", 3)
    write_safetensors(path, tensors, info, {name: text for name, text in metadata.items() if name.endswith(".run")})
    with pytest.raises(DataError, match=r"part\.safetensors: .*test_convnext2"):
        read_model_file(path)


@pytest.mark.parametrize("options", [{"variant": "custom_cnn"}, {"variant": "convnext_atto", "stem_stride": 2}])
def test_every_network_travels(tmp_path, options):
    config = Config(
        data=DataConfig(source="folder:cells", image_size=32, crop=None, class_names=("a", "b")),
        model=ModelConfig(num_classes=2, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), dtype="float32", **options),
    )
    params, calibration = drawn(config.model), drawn_calibration()
    path, facts = tmp_path / "model.safetensors", {"val/loss": 0.5}
    record = ModelRecord(config, 7, facts, "1", calibration=calibration)
    write_model_file(path, params, record, model_info(config, None))
    found, record = read_model_file(path)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    values = calibration_values(record.calibration), calibration_values(calibration)
    jax.tree.map(np.testing.assert_array_equal, *values)
    # Whoever starts from it takes the network alone.
    jax.tree.map(np.testing.assert_array_equal, load_weights(path, build_model(config.model)), params)
    assert record.config.model == config.model
    assert record.config.data == dataclasses.replace(config.data, source=None)
    assert (record.step, record.metrics, record.version) == (7, {"val/loss": 0.5}, "1")
    assert bc.read_weights_info(path).stem_stride == config.model.stem_stride
    target = tmp_path / "again.safetensors"
    bc.weights.convert(path, target)
    assert target.read_bytes() == path.read_bytes()


def test_a_changed_byte_anywhere_in_the_file_is_found(trained, tmp_path):
    content = (trained / "model.safetensors").read_bytes()
    path, header = tmp_path / "model.safetensors", 8 + int.from_bytes(content[:8], "little")
    for position in (header // 3, header // 2, header + 5, (header + len(content)) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"model\.safetensors: .*(damaged|header|whole|metadata)"):
            read_model_file(path)
    path.write_bytes(content)
    read_model_file(path)
