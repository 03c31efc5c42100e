"""A network is found behind any prefix and in any dict; of several one is taken, which is said, or none."""

import logging
import re

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from bloodcell_jax import cli
from bloodcell_jax.errors import DataError
from bloodcell_jax.models import create_model
from bloodcell_jax.weights import convert, load_weights, read_weights_info
from bloodcell_jax.weights.parts import find_prefixes, split_part

VARIANT = "test_convnext"


@pytest.fixture
def params(random_params):
    return random_params(create_model(VARIANT, 7))


@pytest.fixture
def tensors(params, written_as):
    return written_as("timm", params)


@pytest.fixture
def start(tensors):
    """Return the tensors of an average that was never updated."""
    return {name: np.zeros_like(array) for name, array in tensors.items()}


@pytest.fixture
def save(torch, tmp_path):
    """Return a function that saves a value, whose arrays become tensors, with torch.save."""

    def as_tensors(value):
        if isinstance(value, dict):
            return {name: as_tensors(entry) for name, entry in value.items()}
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    def save_to(value):
        torch.save(as_tensors(value), tmp_path / "w.pth")
        return tmp_path / "w.pth"

    return save_to


@pytest.fixture
def loads(params):
    """Return a function that checks that a source has the parameters."""

    def check(source):
        loaded = flatten_dict(load_weights(source, create_model(VARIANT, 7)), sep="/")
        for name, array in params.items():
            np.testing.assert_array_equal(loaded[name], array, err_msg=name)

    return check


def behind(prefix, tensors):
    return {prefix + name: array for name, array in tensors.items()}


@pytest.mark.parametrize("layout", ["timm", "facebook", "torchvision", "hugging face"])
@pytest.mark.parametrize("prefix", ["_orig_mod.", "model.", "backbone.", "module._orig_mod.", "net.encoder.0.body."])
def test_a_prefix_is_taken_off_and_said(layout, prefix, params, written_as, loads, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    save_file(behind(prefix, written_as(layout, params)), tmp_path / "w.safetensors")
    assert read_weights_info(tmp_path / "w.safetensors").variant == VARIANT
    loads(tmp_path / "w.safetensors")
    assert re.search(rf"w\.safetensors: .*{prefix.split('.')[0]}.* taken off", caplog.text)


def test_a_name_without_prefix_is_loaded_in_silence(tensors, loads, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    save_file(tensors, tmp_path / "w.safetensors")
    loads(tmp_path / "w.safetensors")
    assert not caplog.text


def test_wrappers_of_single_blocks_are_taken_off(tensors, loads, tmp_path):
    wrapped = {n.replace("blocks.1.", "blocks.1._orig_mod."): array for n, array in tensors.items()}
    fsdp = {f"_fsdp_wrapped_module.{n.replace('mlp.', '_checkpoint_wrapped_module.mlp.')}": wrapped[n] for n in wrapped}
    save_file(fsdp, tmp_path / "w.safetensors")
    loads(tmp_path / "w.safetensors")


def averaged(torch, timm, network):
    return torch.optim.swa_utils.AveragedModel(network)


def compiled(torch, timm, network):
    return torch.nn.DataParallel(torch.compile(network))


def exponential(torch, timm, network):
    return timm.utils.ModelEmaV3(network)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("wrap", [averaged, compiled, exponential])
def test_what_torch_and_timm_wrap_is_loaded(wrap, torch, timm, tensors, loads, tmp_path):
    network = timm.create_model(VARIANT, num_classes=7)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
    torch.save({"epoch": 3, "net": wrap(torch, timm, network).state_dict()}, tmp_path / "w.pth")
    loads(tmp_path / "w.pth")


def test_what_stands_beside_the_network_is_left_out_and_said(tensors, loads, tmp_path, caplog):
    others = {"criterion.weight": np.ones(7, np.float32), "n_averaged": np.ones(1, np.int64)}
    save_file(behind("module.", tensors) | others, tmp_path / "w.safetensors")
    loads(tmp_path / "w.safetensors")
    assert re.search(r"w\.safetensors: 2 tensors .*criterion\.weight, n_averaged", caplog.text)


def test_names_without_a_prefix_stay_strict(tensors, tmp_path):
    save_file(tensors | {"criterion.weight": np.ones(7, np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"\+ criterion\.weight \[7\]"):
        load_weights(tmp_path / "w.safetensors", create_model(VARIANT, 7))


def test_missing_tensors_behind_a_prefix_are_named_as_in_the_file(tensors, tmp_path):
    tensors["rope.freqs"] = np.ones(3, np.float32)
    save_file(behind("model.", tensors), tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"\+ model\.rope\.freqs \[3\]"):
        load_weights(tmp_path / "w.safetensors", create_model(VARIANT, 7))


@pytest.mark.parametrize("name", ["module", "model_state_dict", "net", "weights", "my_own_name"])
def test_the_only_dict_of_tensors_is_the_network(name, tensors, save, loads):
    loads(save({"arch": "convnext", name: tensors, "optimizer_state_dict": {}, "epoch": 3, "acc": 0.9}))


def test_dicts_and_prefixes_may_be_nested(tensors, save, loads):
    loads(save({"checkpoint": {"state_dict": behind("model.module.", tensors)}, "epoch": 3}))


@pytest.mark.parametrize(
    ("taken", "other"),
    [
        ("model_ema", "model"),
        ("state_dict_ema", "state_dict"),
        ("state_dict", "current_model_state"),
        ("ema_model", "online_model"),
        ("ema", "model"),
    ],
)
def test_averaged_weights_are_taken_before_trained_ones_and_both_are_said(
    taken, other, tensors, start, save, loads, caplog
):
    path = save({other: start, taken: behind("module.", tensors)})
    loads(path)
    assert re.search(rf"w\.pth: .*\b{taken}\b.* taken; .*w\.pth#{other}\b", caplog.text)


def test_the_other_one_is_loaded_if_asked_for(tensors, start, save, loads, tmp_path, caplog):
    path = save({"model": tensors, "model_ema": start})
    loads(f"{path}#model")
    assert re.search(r"w\.pth: .*\bmodel is taken; .*w\.pth#model_ema\b", caplog.text)
    assert read_weights_info(f"{path}#model").variant == VARIANT
    convert(f"{path}#model", tmp_path / "trained.safetensors")
    convert(path, tmp_path / "averaged.safetensors")
    assert load_file(tmp_path / "trained.safetensors")["head/bias"].any()
    assert not load_file(tmp_path / "averaged.safetensors")["head/bias"].any()


def test_a_copy_inside_one_state_dict_is_found_too(tensors, start, loads, tmp_path):
    save_file(behind("model.", tensors) | behind("model_ema.module.", start), tmp_path / "w.safetensors")
    loads(f"{tmp_path}/w.safetensors#model")
    save_file(tensors | behind("ema.", start), tmp_path / "bare.safetensors")
    loads(f"{tmp_path}/bare.safetensors#")


@pytest.mark.parametrize(
    "names", [("student", "teacher"), ("state_dict", "ema_state_dict"), ("encoder_q", "encoder_k"), ("net", "model")]
)
def test_two_networks_without_a_known_preference_are_refused_with_both(names, tensors, start, save, loads):
    path = save(dict(zip(names, (tensors, start), strict=True)))
    with pytest.raises(DataError, match=rf"w\.pth: holds 2 .*w\.pth#{names[0]}, .*w\.pth#{names[1]}") as error:
        read_weights_info(path)
    assert "\n" not in str(error.value)
    loads(f"{path}#{names[0]}")


def test_a_part_that_is_not_there_is_refused_with_those_that_are(tensors, save, capsys, tmp_path):
    path = save({"model": tensors})
    command = ["bloodcell", "convert", f"--input={path}#trained", f"--output={tmp_path}/o.safetensors"]
    assert cli.main(command) == 3
    assert re.search(rf"{path}#trained: .*{path}#model\n$", capsys.readouterr().err)


def test_a_file_whose_name_has_the_mark_is_a_file(tensors, tmp_path, loads):
    save_file(tensors, tmp_path / "w#1.safetensors")
    loads(tmp_path / "w#1.safetensors")
    assert split_part("a/w.pth#x.y") == ("a/w.pth", "x.y")
    assert split_part("convnext_tiny.fb_in1k") == ("convnext_tiny.fb_in1k", None)


def test_an_isotropic_network_behind_a_prefix_is_still_named(tmp_path):
    save_file({"model.blocks.0.dwconv.weight": np.zeros((8, 1, 7, 7))}, tmp_path / "iso.safetensors")
    with pytest.raises(DataError, match=r"iso\.safetensors: .*isotropic"):
        read_weights_info(tmp_path / "iso.safetensors")


def test_unknown_names_of_a_network_with_stages_are_shown(tmp_path):
    save_file({"model.stages.0.0.blocks.0.dwconv.weight": np.zeros((8, 1, 7, 7))}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"w\.safetensors: .*\bmodel\.stages\.0\.0\.blocks\.0\.dwconv\.weight"):
        read_weights_info(tmp_path / "w.safetensors")


def test_a_very_long_name_costs_no_time():
    assert find_prefixes(["a." * 10**6 + "stem"], [r".*/stem.*"]) == {}
