"""Loading is strict, logs what it does, and reads the tensors as they were saved."""

import dataclasses
import logging
import re

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file

from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.models import create_model
from bloodcell_jax.weights import WeightsInfo, convert, load_weights, read_weights_info, save_weights
from bloodcell_jax.weights.info import variant_info

VARIANT = "test_convnext"
INFO = WeightsInfo(
    VARIANT, 7, 1e-5, "gelu_tanh", (0.5, 0.5, 0.5), (0.4, 0.4, 0.4), 160, tuple("abcdefg"), "Apache-2.0", "a test"
)


@pytest.fixture
def model():
    return create_model(VARIANT, 7)


@pytest.fixture
def params(random_params, model):
    return random_params(model)


@pytest.fixture
def path(tmp_path, params):
    save_weights(tmp_path / "model.safetensors", unflatten_dict(params, sep="/"), INFO)
    return tmp_path / "model.safetensors"


def flat(params):
    return flatten_dict(params, sep="/")


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_saved_weights_are_loaded_to_the_bit(path, model, params):
    assert_equal(flat(load_weights(path, model)), params)
    assert read_weights_info(path) == INFO


def test_saving_twice_writes_the_same_bytes(path, model, tmp_path):
    save_weights(tmp_path / "again.safetensors", load_weights(path, model), INFO)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_the_custom_cnn_is_saved_and_loaded_too(random_params, tmp_path):
    model = create_model("custom_cnn", 5)
    params = random_params(model)
    info = WeightsInfo("custom_cnn", 5, input_size=96)
    save_weights(tmp_path / "cnn.safetensors", unflatten_dict(params, sep="/"), info)
    assert_equal(flat(load_weights(tmp_path / "cnn.safetensors", model)), params)
    assert read_weights_info(tmp_path / "cnn.safetensors") == info


@pytest.mark.parametrize("variant", ["test_convnext", "convnextv2_atto", "convnext_atto_ols"])
def test_converting_keeps_every_bit(variant, random_params, tmp_path, model):
    model = create_model(variant, 7)
    params = random_params(model)
    save_weights(tmp_path / "a.safetensors", unflatten_dict(params, sep="/"), variant_info(variant, 7, source="x"))
    info = convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert_equal(load_file(tmp_path / "b.safetensors"), params)
    assert read_weights_info(tmp_path / "b.safetensors") == info == variant_info(variant, 7, source="x")


def test_converting_a_published_layout_keeps_every_bit_and_knows_the_variant(params, written_as, model, tmp_path):
    save_file(written_as("timm", params), tmp_path / "timm.safetensors")
    info = convert(tmp_path / "timm.safetensors", tmp_path / "ours.safetensors")
    assert info == variant_info(VARIANT, 7, source="timm.safetensors")
    assert_equal(flat(load_weights(tmp_path / "ours.safetensors", model)), params)


def test_converting_without_a_head_writes_none(params, written_as, model, tmp_path, caplog):
    headless = {name: array for name, array in params.items() if not name.startswith("head/")}
    save_file(written_as("hugging face", headless), tmp_path / "hf.safetensors")
    info = convert(tmp_path / "hf.safetensors", tmp_path / "ours.safetensors")
    assert info.num_classes is None
    assert_equal(load_file(tmp_path / "ours.safetensors"), headless)
    assert "drawn anew" not in caplog.text
    assert load_weights(tmp_path / "ours.safetensors", model)["head"]["kernel"].shape == (64, 7)


@pytest.mark.parametrize(
    ("target", "variant", "message"),
    [
        ("out.npz", None, r"^--output=\S*out\.npz: .*\.safetensors\b"),
        ("model.safetensors", None, r"^--output=\S*model\.safetensors: .*already"),
        ("nowhere/out.safetensors", None, r"^--output=\S*out\.safetensors: no folder \S*nowhere\b"),
        ("out.safetensors", "convnext_teeny", r"^--variant=convnext_teeny: .*\bconvnext_tiny\b"),
    ],
)
def test_converting_refuses_a_target_or_variant_that_it_cannot_use(target, variant, message, path, tmp_path):
    with pytest.raises(UsageError, match=message):
        convert(path, tmp_path / target, variant)


def test_the_parameters_have_the_models_structure(path, model):
    params = load_weights(path, model)
    expected = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 64, 64, 3))))["params"]
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    assert all(isinstance(leaf, np.ndarray) and leaf.flags.writeable for leaf in jax.tree.leaves(params))


def test_a_head_for_other_classes_is_drawn_anew_from_the_key_and_said(path, params, caplog):
    model = create_model(VARIANT, 8)
    loaded = [flat(load_weights(path, model, head_key=jax.random.key(seed))) for seed in (1, 1, 2)]
    assert loaded[0]["head/kernel"].shape == (64, 8)
    np.testing.assert_array_equal(loaded[0]["head/kernel"], loaded[1]["head/kernel"])
    assert (loaded[0]["head/kernel"] != loaded[2]["head/kernel"]).any()
    init = jax.jit(lambda key: model.init(key, np.zeros((1, 32, 32, 3)))["params"]["head"])
    expected = init(jax.random.key(1))
    np.testing.assert_array_equal(loaded[0]["head/kernel"], expected["kernel"])
    for name in params.keys() - {"head/kernel", "head/bias"}:
        np.testing.assert_array_equal(loaded[0][name], params[name])
    assert re.search(r"model\.safetensors: the head .*\b8 classes.*\b7 classes", caplog.text)


def test_a_head_for_the_same_number_of_classes_is_loaded_silently(path, model, caplog):
    load_weights(path, model)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("missing", ["stage_2/block_3/expand/kernel", "head_norm/bias", "head/bias", "stem_norm/scale"])
def test_a_missing_tensor_is_named(missing, model, params, tmp_path):
    shape = list(params.pop(missing).shape)
    save_file(params, tmp_path / "w.safetensors")
    with pytest.raises(DataError) as error:
        load_weights(tmp_path / "w.safetensors", model)
    assert str(error.value).splitlines()[1:] == [f"- {missing} {shape}"]


def test_missing_extra_and_misshapen_tensors_are_listed_by_the_files_names(model, params, written_as, tmp_path):
    tensors = written_as("facebook", params)
    del tensors["stages.0.0.gamma"]
    tensors["stages.1.0.dwconv.weight"] = np.zeros((32, 1, 5, 5), np.float32)
    tensors["stages.3.9.norm.weight"] = tensors["rope.freqs"] = np.zeros(3, np.float32)
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(DataError) as error:
        load_weights(tmp_path / "w.safetensors", model)
    first, *lines = str(error.value).splitlines()
    assert re.search(r"w\.safetensors \(facebook layout\) does not fit", first)
    assert sorted(lines) == [
        "+ rope.freqs [3]",
        "+ stages.1.0.dwconv.weight [5, 5, 1, 32]",
        "+ stages.3.9.norm.weight [3]",
        "- stage_0/block_0/layer_scale [24]",
        "- stage_1/block_0/depthwise/kernel [7, 7, 1, 32]",
    ]


def test_another_variant_does_not_fit(path):
    with pytest.raises(DataError, match=r"- stage_0/block_1/depthwise/kernel \[7, 7, 1, 40\]"):
        load_weights(path, create_model("convnext_atto", 7))


def test_a_long_list_is_cut(path):
    with pytest.raises(DataError) as error:
        load_weights(path, create_model("convnext_tiny", 7))
    lines = str(error.value).splitlines()
    assert len(lines) == 1 + 100 + 1
    assert lines[-1].startswith("... and ")


def test_a_head_of_another_width_is_no_replaceable_head(params, tmp_path):
    params["head/kernel"] = np.zeros((65, 9), np.float32)
    params["head/bias"] = np.zeros(9, np.float32)
    save_file(params, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"\+ head/kernel \[65, 9\]"):
        load_weights(tmp_path / "w.safetensors", create_model(VARIANT, 8))


def test_whole_numbers_are_no_weights(params, model, tmp_path):
    params["head/bias"] = np.zeros(7, np.int32)
    save_file(params, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"w\.safetensors: .*\bint32\b"):
        load_weights(tmp_path / "w.safetensors", model)


def test_a_head_that_normalizes_before_pooling_needs_its_variant(random_params, written_as, tmp_path):
    params = random_params(create_model("convnext_tiny_hnf", 7))
    tensors = {n.replace("head.norm.", "norm_pre."): array for n, array in written_as("timm", params).items()}
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"w\.safetensors: .*\bbefore pooling\b.*\bafter\b"):
        load_weights(tmp_path / "w.safetensors", create_model("convnext_tiny", 7))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><title>404</title>", "a web page"),
        (b"\n<html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "Git LFS"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
        (b"", "not a weights file"),
        (b"\xff\xd8\xff\xe0 an image", "not a weights file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{", "longer than the file"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff{}", "longer than the file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"PK\x03\x04" + bytes(100), "not a whole PyTorch checkpoint"),
    ],
)
def test_a_file_without_weights_ends_in_one_line(content, message, model, tmp_path):
    (tmp_path / "weights.pth").write_bytes(content)
    for read in (read_weights_info, lambda path: load_weights(path, model)):
        with pytest.raises(DataError, match=rf"weights\.pth: .*{message}") as error:
            read(tmp_path / "weights.pth")
        assert "\n" not in str(error.value)


def test_folders_and_missing_files_end_in_one_line(model, tmp_path):
    with pytest.raises(DataError, match=rf"^{re.escape(str(tmp_path))}: a folder"):
        load_weights(tmp_path, model)
    with pytest.raises(DataError, match=r"nothing\.pth: no such file"):
        load_weights(tmp_path / "nothing.pth", model)


def test_other_networks_are_refused(model, tmp_path):
    save_file({"conv1.weight": np.zeros(3), "layer1.0.conv1.weight": np.zeros(3)}, tmp_path / "resnet.safetensors")
    with pytest.raises(DataError, match=r"resnet\.safetensors: .*\b2 tensors .*\bconv1\.weight"):
        load_weights(tmp_path / "resnet.safetensors", model)


def test_an_unpublished_structure_is_named(params, tmp_path):
    params = {name: array for name, array in params.items() if not name.startswith("stage_3/block_1")}
    save_file(params, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"w\.safetensors: .*depths \(1, 2, 4, 1\), dims \(24, 32, 48, 64\)"):
        read_weights_info(tmp_path / "w.safetensors")


def test_info_comes_from_the_catalog_by_the_files_name(random_params, written_as, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    params = random_params(create_model("convnextv2_atto", 7))
    path = tmp_path / "convnextv2_atto_1k_224_ema.pt"
    save_file(written_as("facebook", params), path)
    info = read_weights_info(path)
    assert (info.source, info.licence) == ("convnextv2_atto.fcmae_ft_in1k", "CC-BY-NC-4.0")
    assert re.search(r"1k_224_ema\.pt: .*\bconvnextv2_atto\.fcmae_ft_in1k\b", caplog.text)


def test_info_is_inferred_if_nothing_is_known_and_the_log_says_so(params, written_as, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    save_file(written_as("timm", params), tmp_path / "mine.safetensors")
    info = read_weights_info(tmp_path / "mine.safetensors")
    assert info == variant_info(VARIANT, 7, source="mine.safetensors")
    assert (info.mean, info.norm_eps, info.licence) == ((0.485, 0.456, 0.406), 1e-5, "")
    assert re.search(r"mine\.safetensors: test_convnext .*ImageNet's mean and std", caplog.text)


def test_a_non_commercial_license_is_shown_before_use_and_stays(random_params, written_as, tmp_path, caplog):
    model = create_model("convnextv2_atto", 7)
    save_file(written_as("facebook", random_params(model)), tmp_path / "convnextv2_atto_1k_224_ema.pt")
    info = convert(tmp_path / "convnextv2_atto_1k_224_ema.pt", tmp_path / "ours.safetensors")
    assert info.licence == "CC-BY-NC-4.0"
    assert re.search(r"1k_224_ema\.pt: .*\bCC-BY-NC-4\.0\b.*no commercial use", caplog.text)
    caplog.clear()
    load_weights(tmp_path / "ours.safetensors", model)
    assert "CC-BY-NC-4.0" in caplog.text


def test_metadata_that_cannot_be_read_is_refused(path, params):
    save_file(params, path, {"bloodcell_jax.weights_info": '{"variant": "convnext_atto", "color": 3}'})
    with pytest.raises(DataError, match=r"model\.safetensors: .*\bbloodcell_jax\.weights_info\b"):
        read_weights_info(path)


def test_the_info_keeps_its_types(path):
    info = read_weights_info(path)
    assert {type(getattr(info, f.name)) for f in dataclasses.fields(info)} == {str, int, float, tuple}
