"""Models of runs, drawn by NumPy: nothing is trained or compiled for their files."""

import functools
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from bloodcell_jax.config import Config, DataConfig, ModelConfig
from bloodcell_jax.export import onnx_file
from bloodcell_jax.export.folders import TIMM_USE
from bloodcell_jax.export.stablehlo import USE
from bloodcell_jax.models.registry import build_model, param_shapes
from bloodcell_jax.run.finished_model import model_info
from bloodcell_jax.weights import WeightsInfo
from bloodcell_jax.weights.calibration import Calibration, Reference
from bloodcell_jax.weights.model_file import ModelRecord, write_model_file

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "export.md"
SIZE = 32
CLASS_NAMES = ("band", "blast", "a|b")
LICENSE = "CC-BY-NC-4.0"


def drawn(model):
    """Return weights that keep the scale of activations, none of which has its initial value."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape, np.float32)
        if leaf.ndim > 1:
            return noise / np.float32(np.sqrt(np.prod(leaf.shape[:-1])))
        return np.float32(0.2) * noise + np.float32(0.5 if path.endswith("scale") else 0.1)

    shapes = flatten_dict(param_shapes(build_model(model), SIZE), sep="/")
    return unflatten_dict({path: draw(path, leaf) for path, leaf in shapes.items()}, sep="/")


def calibration(config):
    """Return a calibration of the network's own sizes."""
    model, rng = build_model(config), np.random.default_rng(1)
    batch = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.float32)
    _, features = jax.eval_shape(lambda x: model.apply({"params": drawn(config)}, x), batch)
    width, inner = features["pooled"].shape[-1], 2 * features["stage_1"].shape[-1]
    shapes = (((5, width), "f2"), (inner, "f4"), ((inner, inner), "f4"))
    arrays = (rng.standard_normal(shape).astype(dtype) for shape, dtype in shapes)
    reference = Reference(*arrays, center=(1.0, 0.5, -7.25), scale=(0.1, 0.2, 3.0), threshold=1.2)
    return Calibration(18, 2, 0.7312, 0.03, 0.01, 0.8, 0.5, reference)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """Return a function: (variant, options of the model) -> the file of such a model, float32 and calibrated."""

    @functools.cache
    def write(variant, **options):
        config = Config(
            data=DataConfig(source="folder:cells", image_size=SIZE, crop=24, class_names=CLASS_NAMES),
            model=ModelConfig(
                variant=variant,
                num_classes=len(CLASS_NAMES),
                mean=(0.6, 0.5, 0.4),
                std=(0.2, 0.25, 0.3),
                **{"dtype": "float32"} | options,
            ),
        )
        path = tmp_path_factory.mktemp(variant) / "model.safetensors"
        record = ModelRecord(config, 7, {"val/loss": 0.5}, "1", calibration=calibration(config.model))
        start = WeightsInfo(variant, None, licence=LICENSE, source="published weights")
        write_model_file(path, drawn(config.model), record, model_info(config, start))
        return path

    return write


@pytest.fixture(scope="session")
def images():
    """Return images uint8 [5, 32, 32, 3] of different colors."""
    rng = np.random.default_rng(2)
    noisy = rng.integers(40, 216, (5, 1, 1, 3)) + 25 * rng.standard_normal((5, SIZE, SIZE, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def export():
    """Return a function that runs the verb: (format, flags, output) -> output."""
    from bloodcell_jax import cli

    def export(name, flag, output):
        assert cli.main(["bloodcell", "export", f"--format={name}", flag, f"--output={output}"]) == 0
        return output

    return export


@pytest.fixture(scope="session")
def predicted(images):
    """Return a function: (model's file) -> what `predict` says of the images, not the same of all."""
    import bloodcell_jax as bc

    @functools.cache
    def predicted(path):
        probabilities = bc.Classifier.from_file(path).predict(images, cropped=True)
        assert probabilities.max() < 0.99
        assert np.ptp(probabilities, axis=0).max() > 0.01
        return probabilities

    return predicted


@pytest.fixture(scope="session")
def documented():
    """Return a function: a word -> the Python of docs/export.md that has it; a card shows the same."""
    text = DOCUMENT.read_text(encoding="utf-8")
    shown = [USE, onnx_file.USE, TIMM_USE]

    def documented(word):
        (code,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.S) if word in code)
        assert sum(f"```python\n{code}```" in use for use in shown) == 1
        return code

    return documented
