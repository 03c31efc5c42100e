"""An exported folder is loaded by timm, or by this library, and answers as `predict` does."""

import numpy as np
import pytest

from bloodcell_jax import cli
from bloodcell_jax.errors import UsageError
from bloodcell_jax.export.folders import write_timm_folder
from bloodcell_jax.export.timm_names import timm_name
from bloodcell_jax.export.trained_model import TrainedModel
from bloodcell_jax.models import create_model
from bloodcell_jax.models.network import leaves_by_path
from bloodcell_jax.models.registry import param_shapes
from bloodcell_jax.weights.model_file import read_model_file, read_model_info, read_model_record
from bloodcell_jax.weights.naming import rename_timm
from bloodcell_jax.workdir.checkpoint_folders import CheckpointFolders

TIMM = [
    ("test_convnext2", {}),
    pytest.param("test_convnext2", {"norm_eps": 1e-3, "activation": "silu"}, marks=pytest.mark.parity),
    *(
        pytest.param(variant, {}, marks=pytest.mark.parity)
        for variant in ("convnext_atto", "convnextv2_atto", "convnext_atto_ols", "convnext_tiny_hnf", "test_convnext3")
    ),
]


@pytest.mark.parametrize(("variant", "options"), TIMM)
def test_timm_gives_the_probabilities_of_predict(
    variant, options, torch, timm, model_file, export, predicted, images, tmp_path
):
    path = model_file(variant, **options)
    folder = export("timm", f"--model={path}", tmp_path / "cells")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    form = model.pretrained_cfg
    assert form["input_size"] in ((3, 32, 32), [3, 32, 32])
    assert form["label_names"] == ["band", "blast", "a|b"]
    normalized = (images / 255 - np.array(form["mean"])) / np.array(form["std"])
    with torch.no_grad():
        logits = model(torch.from_numpy(normalized.transpose(0, 3, 1, 2).astype(np.float32)))
    np.testing.assert_allclose(logits.softmax(-1).numpy(), predicted(path), rtol=0, atol=1e-5)
    assert "CC-BY-NC-4.0" in (folder / "LICENSE.txt").read_text()
    assert "local-dir:" in (folder / "README.md").read_text()


@pytest.mark.parametrize("variant", ["convnext_tiny", "convnext_tiny_hnf", "convnext_atto_ols", "convnextv2_atto"])
def test_timms_names_are_read_back_as_ours(variant):
    model = create_model(variant, 3)
    form = {"overlapping_stem": "ols" in variant, "norm_before_pool": "hnf" in variant}
    shapes = {path: leaf.shape for path, leaf in leaves_by_path(param_shapes(model, 32)).items()}
    theirs = {timm_name(path, **form): shape for path, shape in shapes.items()}
    assert len(theirs) == len(shapes)
    ours = rename_timm(theirs)
    assert {timm_name(path, **form): path for path in shapes} == ours


def test_safetensors_is_the_model_s_own_file(model_file, export, tmp_path):
    path = model_file("test_convnext2")
    folder = export("safetensors", f"--model={path}", tmp_path / "cells")
    assert (folder / "model.safetensors").read_bytes() == path.read_bytes()
    assert "CC-BY-NC-4.0" in (folder / "LICENSE.txt").read_text()
    card = (folder / "README.md").read_text()
    assert all(name in card for name in ("`band`", "`blast`", "`a|b`", "0.7312", "24 pixels", "published weights"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cells"]


def test_a_network_that_timm_lacks_leaves_nothing(model_file, tmp_path):
    for variant, options, words in (
        ("custom_cnn", {}, "timm has no custom_cnn"),
        ("convnext_atto", {"stem_stride": 2}, "stem_stride=2"),
    ):
        path = model_file(variant, **options)
        params, record = read_model_file(path)
        model = TrainedModel(leaves_by_path(params), record, read_model_info(path)[1])
        with pytest.raises(UsageError, match=words):
            write_timm_folder(tmp_path / "cells", model)
    assert not list(tmp_path.iterdir())


def test_a_workdir_gives_its_own_model_or_another_checkpoint(trained, export, tmp_path):
    folder = export("safetensors", f"--workdir={trained}", tmp_path / "best")
    assert (folder / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    steps = CheckpointFolders(trained / "checkpoints").steps()
    other = next(step for step in steps if step != read_model_record(trained / "model.safetensors").step)
    command = ["bloodcell", "export", "--format=safetensors", f"--workdir={trained}", f"--checkpoint={other}"]
    assert cli.main([*command, f"--output={tmp_path / 'other'}"]) == 0
    record = read_model_record(tmp_path / "other" / "model.safetensors")
    assert (record.step, record.calibration) == (other, None)
    assert "Not calibrated" in (tmp_path / "other" / "README.md").read_text()
