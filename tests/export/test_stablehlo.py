"""An exported StableHLO program answers as `predict` does, in a process that does not have this library."""

import json
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest

pytest.importorskip("flatbuffers", reason="needs the extra [stablehlo]")

# Runs after the loader of the document, whose images stand in for those of a user.
CHECK = """
import sys
given = np.load("images.npy")
assert "bloodcell_jax" not in sys.modules
call = jax.jit(program.call)
answers = [call(weights, given[:count]) for count in (1, len(given))]
np.savez("answers.npz", one=answers[0], all=answers[1], shape=probabilities.shape)
print(json.dumps([about["class_names"], program.platforms]))
"""


@pytest.fixture(scope="module")
def exported(model_file, export, tmp_path_factory):
    """Return the file of a model and its zip."""
    path = model_file("test_convnext2")
    return path, export("stablehlo", f"--model={path}", tmp_path_factory.mktemp("stablehlo") / "cells.zip")


def test_the_documented_loader_gives_the_probabilities_of_predict(exported, documented, predicted, images):
    path, file = exported
    np.save(file.parent / "images.npy", images)
    # The folder of the process has no checkout, and the finder of an editable installation stays unused.
    env = {name: value for name, value in os.environ.items() if not name.startswith("XLA_FLAGS")}
    command = [sys.executable, "-c", documented("export.deserialize") + CHECK]
    result = subprocess.run(command, cwd=file.parent, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [["band", "blast", "a|b"], ["cpu", "cuda", "tpu"]]
    expected = predicted(path)
    with np.load(file.parent / "answers.npz") as answers:
        np.testing.assert_allclose(answers["all"], expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(answers["one"], expected[:1], rtol=0, atol=1e-6)
        assert answers["shape"].tolist() == [5, 3]


def test_the_zip_holds_all_that_a_user_needs(exported):
    path, file = exported
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        assert names[:4] == ["README.md", "LICENSE.txt", "model.json", "model.jax_export"]
        assert all(name.startswith("weights/") for name in names[4:])
        about = json.loads(archive.read("model.json"))
        assert "CC-BY-NC-4.0" in archive.read("LICENSE.txt").decode()
        card = archive.read("README.md").decode()
        # Weights are inputs of the program, not constants inside it.
        assert archive.getinfo("model.jax_export").file_size < path.stat().st_size / 10
    assert about["class_names"] == ["band", "blast", "a|b"]
    assert about["temperature"] == 0.7312
    assert (about["mean"], about["std"]) == ([0.6, 0.5, 0.4], [0.2, 0.25, 0.3])
    assert about["geometry"]["image_size"] == 32
    assert about["geometry"]["crop"] == 24
    assert about["license"] == "CC-BY-NC-4.0"
    assert "val/loss | 0.5000" in card


def program_of(file):
    from jax import export

    with zipfile.ZipFile(file) as archive:
        return export.deserialize(bytearray(archive.read("model.jax_export")))


def test_the_program_calls_no_kernel_of_a_platform(exported):
    program = program_of(exported[1])
    # JAX checks the sizes of a batch by the one that is there.
    assert set(re.findall(r"custom_call @(\w+)", program.mlir_module())) == {"shape_assertion"}
    assert str(program.in_avals[-1].shape) == "(batch, 32, 32, 3)"


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("variant", "options", "tolerance"),
    [
        ("custom_cnn", {}, 1e-6),
        ("convnextv2_atto", {"scan_blocks": True}, 1e-6),
        ("convnext_atto", {"stem_stride": 2}, 1e-6),
        ("convnext_atto_ols", {}, 1e-6),
        # Its rounding depends on what the compiler fuses.
        ("convnext_atto", {"dtype": "bfloat16"}, 2e-2),
    ],
)
def test_every_network_is_exported(variant, options, tolerance, model_file, export, predicted, images, tmp_path):
    import jax

    path = model_file(variant, **options)
    file = export("stablehlo", f"--model={path}", tmp_path / "cells.zip")
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.startswith("weights/")]
        weights = {name[8:-4]: np.load(archive.open(name)) for name in names}
    probabilities = jax.jit(program_of(file).call)(weights, images)
    np.testing.assert_allclose(probabilities, predicted(path), rtol=0, atol=tolerance)
