"""An exported folder is loaded by timm, or by this library, and answers as `predict` does."""

import numpy as np
import pytest

from bloodcell_jax import cli
from bloodcell_jax.errors import UsageError
from bloodcell_jax.export.folders import write_timm_folder
from bloodcell_jax.export.timm_names import timm_axes, timm_name
from bloodcell_jax.export.trained_model import TrainedModel
from bloodcell_jax.models import create_model
from bloodcell_jax.models.network import leaves_by_path
from bloodcell_jax.models.registry import param_shapes
from bloodcell_jax.models.variants import VARIANTS
from bloodcell_jax.weights.model_file import read_model_file, read_model_info, read_model_record
from bloodcell_jax.weights.naming import rename_timm
from bloodcell_jax.workdir.checkpoint_folders import CheckpointFolders

TIMM = [
    # The second one has 1x1 convolutions for dense layers in timm.
    ("test_convnext2", {}),
    pytest.param("convnext_atto", {}, marks=pytest.mark.parity),
    pytest.param("test_convnext2", {"norm_eps": 1e-3, "activation": "silu"}, marks=pytest.mark.parity),
    *(
        pytest.param(variant, {}, marks=pytest.mark.parity)
        for variant in ("convnextv2_atto", "convnext_atto_ols", "convnext_tiny_hnf", "test_convnext3")
    ),
]


@pytest.mark.parametrize(("variant", "options"), TIMM)
def test_timm_gives_the_probabilities_of_predict(
    variant, options, torch, timm, model_file, export, predicted, images, documented, tmp_path, monkeypatch
):
    path = model_file(variant, **options)
    folder = export("timm", f"--model={path}", tmp_path / "cells_for_timm")
    monkeypatch.chdir(tmp_path)
    exec(documented("timm"), found := {})
    model = found["model"]
    form = model.pretrained_cfg
    assert found["probabilities"].shape == (5, 3)
    assert form["input_size"] in ((3, 32, 32), [3, 32, 32])
    assert form["label_names"] == ["band", "blast", "a|b"]
    normalized = (images / 255 - np.array(form["mean"])) / np.array(form["std"])
    with torch.no_grad():
        logits = model(torch.from_numpy(normalized.transpose(0, 3, 1, 2).astype(np.float32)))
    np.testing.assert_allclose(logits.softmax(-1).numpy(), predicted(path), rtol=0, atol=1e-5)
    assert "CC-BY-NC-4.0" in (folder / "LICENSE.txt").read_text()
    assert "local-dir:" in (folder / "README.md").read_text()


QUICK = ("convnext_tiny", "convnext_tiny_hnf", "convnext_atto_ols", "convnextv2_atto")


@pytest.mark.parametrize(
    "variant", [name if name in QUICK else pytest.param(name, marks=pytest.mark.parity) for name in VARIANTS]
)
def test_names_and_shapes_are_timms(variant, torch, timm):
    model = create_model(variant, 3)
    own = model.variant
    form = {"overlapping_stem": own.stem != "patch", "norm_before_pool": own.norm_before_pool}
    # One number seen as a whole array: the largest variant has 3 GB.
    arrays = {
        path: np.broadcast_to(np.float32(0), leaf.shape)
        for path, leaf in leaves_by_path(param_shapes(model, 32)).items()
    }
    ours = {timm_name(path, **form): timm_axes(path, array, variant).shape for path, array in arrays.items()}
    with torch.device("meta"):
        peer = timm.create_model(variant, num_classes=3)
    assert ours == {name: tuple(tensor.shape) for name, tensor in peer.state_dict().items()}
    # What is read back is what was written.
    assert rename_timm(ours) == {timm_name(path, **form): path for path in arrays}


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
