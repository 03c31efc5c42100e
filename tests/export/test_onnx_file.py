"""An exported ONNX file answers under onnxruntime as `predict` does."""

import json

import numpy as np
import pytest

from bloodcell_jax.export.onnx_graph import Graph

onnx = pytest.importorskip("onnx", reason="needs the extra [onnx]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [test]")

# A loop over the blocks of a stage halves what is compiled for the answers to compare with.
QUICK = [("test_convnext2", {}), ("convnextv2_atto", {"scan_blocks": True}), ("custom_cnn", {})]
MORE = [
    ("test_convnext", {}),
    ("test_convnext3", {"norm_eps": 1e-3}),
    ("convnext_atto", {}),
    ("convnext_atto", {"stem_stride": 2, "activation": "silu"}),
    ("convnext_atto_ols", {}),
    ("convnext_nano_ols", {"stem_stride": 2}),
    ("convnext_tiny_hnf", {}),
]


@pytest.mark.parametrize(
    ("variant", "options"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in MORE)]
)
def test_probabilities_are_those_of_predict(variant, options, model_file, export, predicted, images, tmp_path):
    path = model_file(variant, **options)
    file = export("onnx", f"--model={path}", tmp_path / "cells.onnx")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    expected = predicted(path)
    for count in (5, 1):
        (probabilities,) = session.run(["probabilities"], {"images": images[:count]})
        np.testing.assert_allclose(probabilities, expected[:count], rtol=0, atol=1e-5)
    # The file itself says what its user needs.
    assert onnx.load(file).opset_import[0].version == 17
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == ["band", "blast", "a|b"]
    assert json.loads(metadata["geometry"])["crop"] == 24
    assert json.loads(metadata["temperature"]) == 0.7312
    assert "CC-BY-NC-4.0" in metadata["license_text"]
    assert metadata["license"] == "CC-BY-NC-4.0"
    assert "0.7312" in metadata["card"]
    (named,) = session.get_inputs()
    assert (named.name, named.type, named.shape) == ("images", "tensor(uint8)", ["n", 32, 32, 3])


def test_the_same_model_gives_the_same_bytes(model_file, export, tmp_path):
    path = model_file("test_convnext2")
    files = [export("onnx", f"--model={path}", tmp_path / f"{name}.onnx") for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_documented_code_runs(model_file, export, documented, tmp_path, monkeypatch):
    export("onnx", f"--model={model_file('test_convnext2')}", tmp_path / "cells.onnx")
    monkeypatch.chdir(tmp_path)
    exec(documented("onnxruntime"), found := {})
    assert found["class_names"] == ["band", "blast", "a|b"]
    assert found["probabilities"].shape == (5, 3)


def test_a_name_stands_for_one_constant():
    graph = Graph()
    assert graph.constant("mean", np.float32([1, 2])) == graph.constant("mean", np.float32([1, 2]))
    with pytest.raises(ValueError, match="mean"):
        graph.constant("mean", np.float32([1, 3]))
