"""Tensors that were written in any published layout are read back as they were."""

import re

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from bloodcell_jax.errors import DataError
from bloodcell_jax.models import create_model
from bloodcell_jax.models.variants import VARIANTS
from bloodcell_jax.weights import load_weights, read_weights_info

V1, V2 = ["test_convnext", "convnext_atto"], ["convnextv2_atto", "convnextv2_femto"]
CLASSES = 7


def cases(*arguments):
    """Return arguments of a test; those with the second variant of a version are for the exhaustive suite."""
    second = {V1[1], V2[1]}
    return [pytest.param(*each, marks=[pytest.mark.exhaustive] * bool(second & {*each})) for each in arguments]


def assert_loads(path, variant, params):
    assert read_weights_info(path).variant == variant
    loaded = flatten_dict(load_weights(path, create_model(variant, CLASSES)), sep="/")
    assert loaded.keys() == params.keys()
    for name, array in params.items():
        assert loaded[name].dtype == np.float32
        assert loaded[name].flags.c_contiguous
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)


@pytest.fixture
def params_of(random_params):
    return lambda variant: random_params(create_model(variant, CLASSES))


@pytest.mark.parametrize(
    ("variant", "wrapper"),
    cases(*(("test_convnext", each) for each in (None, "model_ema", "state_dict")), *((v, "model") for v in V1 + V2)),
)
def test_facebook(variant, wrapper, params_of, written_as, torch, tmp_path):
    params = params_of(variant)
    tensors = {name: torch.from_numpy(array) for name, array in written_as("facebook", params).items()}
    torch.save({wrapper: tensors, "epoch": 3} if wrapper else tensors, tmp_path / "weights.pth")
    assert_loads(tmp_path / "weights.pth", variant, params)


@pytest.mark.parametrize(
    ("layout", "variant"),
    cases(
        *(("facebook", variant) for variant in V1 + V2),
        *(("timm", variant) for variant in V1 + V2),
        *(("torchvision", variant) for variant in V1),
        *(("hugging face", variant) for variant in V1 + V2),
    ),
)
def test_torch_names_in_safetensors(layout, variant, params_of, written_as, tmp_path):
    params = params_of(variant)
    save_file(written_as(layout, params), tmp_path / "model.safetensors")
    assert_loads(tmp_path / "model.safetensors", variant, params)


@pytest.mark.parametrize("layout", ["facebook", "timm", "torchvision", "hugging face"])
def test_the_prefix_of_distributed_training_is_ignored(layout, params_of, written_as, tmp_path):
    params = params_of("test_convnext")
    tensors = {f"module.{name}": array for name, array in written_as(layout, params).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    assert_loads(tmp_path / "model.safetensors", "test_convnext", params)


@pytest.mark.parametrize("variant", ["convnext_atto_ols", "convnext_nano_ols", "convnext_tiny_hnf", "test_convnext3"])
def test_timm_stems_and_heads(variant, params_of, written_as, tmp_path):
    params = params_of(variant)
    tensors = written_as("timm", params)
    if VARIANTS[variant].norm_before_pool:
        tensors = {name.replace("head.norm.", "norm_pre."): array for name, array in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    assert_loads(tmp_path / "model.safetensors", variant, params)


@pytest.mark.parametrize("variant", ["test_convnext", "convnextv2_atto"])
@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64])
def test_other_precisions_become_float32(variant, dtype, params_of, written_as, torch, tmp_path):
    params = {name: array.astype(dtype).astype(np.float32) for name, array in params_of(variant).items()}
    kind = getattr(torch, jnp.dtype(dtype).name)
    tensors = {name: torch.from_numpy(array).to(kind) for name, array in written_as("timm", params).items()}
    torch.save(tensors, tmp_path / "weights.pt")
    assert_loads(tmp_path / "weights.pt", variant, params)


@pytest.mark.parametrize("variant", ["test_convnext", "convnextv2_atto"])
def test_1x1_convolutions_are_dense_layers(variant, params_of, written_as, tmp_path):
    params = params_of(variant)
    tensors = {
        name: array[..., None, None] if ".mlp.fc" in name and array.ndim == 2 else array
        for name, array in written_as("timm", params).items()
    }
    save_file(tensors, tmp_path / "model.safetensors")
    assert_loads(tmp_path / "model.safetensors", variant, params)


@pytest.mark.parametrize("grn", ["weight bias", "gamma beta"])
@pytest.mark.parametrize("variant", cases(*((variant,) for variant in V2)))
def test_hugging_face_without_prefix_and_with_either_name_of_grn(variant, grn, params_of, written_as, tmp_path):
    params = params_of(variant)
    names = dict(zip(["weight", "bias"], grn.split(), strict=True))
    tensors = {}
    for name, array in written_as("hugging face", params).items():
        module, _, leaf = name.removeprefix("convnext.").rpartition(".")
        tensors[f"{module}.{names[leaf] if module.endswith('grn') else leaf}"] = array
    save_file(tensors, tmp_path / "model.safetensors")
    assert_loads(tmp_path / "model.safetensors", variant, params)


def sparse(tensors):
    """Return tensors under the names and in the shapes of FCMAE's sparse encoder, whose stem is dense too."""
    written = {}
    for name, array in tensors.items():
        module, _, leaf = name.rpartition(".")
        if "dwconv" in module and leaf == "weight":  # (c, 1, h, w) -> (w * h, c), columns first
            leaf, array = "kernel", array[:, 0].transpose(2, 1, 0).reshape(-1, len(array))
        elif "downsample" in module and array.ndim == 4 and not module.endswith("0.0"):  # -> (w * h, in, out)
            leaf, array = "kernel", array.transpose(3, 2, 1, 0).reshape(-1, array.shape[1], array.shape[0])
        elif "pwconv" in module:
            module += ".linear"
        elif "norm" in module or (array.ndim == 1 and module.count(".") == 2 and module.endswith(".0")):
            module += "" if module == "downsample_layers.0.0" else ".ln"
        elif module.endswith("grn"):
            array = array.reshape(1, -1)
        if leaf == "bias" and ("dwconv" in module or module.endswith(".1")) and not module.startswith("stem"):
            array = array.reshape(1, -1)
        written[f"encoder.{module}.{leaf}"] = np.ascontiguousarray(array)
    return written | {
        "decoder.0.dwconv.weight": np.zeros((2, 1, 7, 7), np.float32),
        "mask_token": np.zeros((1, 2, 1, 1), np.float32),
        "proj.weight": np.zeros((2, 2), np.float32),
        "pred.bias": np.zeros(2, np.float32),
    }


@pytest.mark.parametrize("form", [lambda tensors: tensors, sparse], ids=["dense", "sparse"])
@pytest.mark.parametrize("variant", cases(*((variant,) for variant in V2)))
def test_fcmae_lacks_head_and_final_norm(variant, form, params_of, written_as, tmp_path, caplog):
    params = {name: array for name, array in params_of(variant).items() if not name.startswith("head")}
    save_file(form(written_as("facebook", params)), tmp_path / "fcmae.safetensors")
    info = read_weights_info(tmp_path / "fcmae.safetensors")
    assert (info.variant, info.num_classes) == (variant, None)
    loaded = flatten_dict(load_weights(tmp_path / "fcmae.safetensors", create_model(variant, CLASSES)), sep="/")
    for name, array in params.items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)
    assert (loaded["head_norm/scale"] == 1).all()
    assert not loaded["head_norm/bias"].any()
    assert loaded["head/kernel"].std() > 0
    assert re.search(rf"fcmae\.safetensors: the head and final norm .*\b{CLASSES} classes", caplog.text)


@pytest.mark.parametrize("is_listed", [False, True])
@pytest.mark.parametrize("variant", cases(*((variant,) for variant in V1)))
def test_hugging_face_tensorflow(variant, is_listed, params_of, written_as, tmp_path):
    params = params_of(variant)
    weights = written_as("hugging face tensorflow", params)
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        for name, array in weights.items():
            file[name] = array
        if is_listed:  # Keras' save_weights lists the layers.
            file.attrs["layer_names"] = [b"convnext", b"classifier"]
            for root in ("convnext", "classifier"):
                inside = [name.removeprefix(f"{root}/") for name in weights if name.startswith(f"{root}/")]
                file[root].attrs["weight_names"] = [name.encode() for name in inside]
    assert_loads(tmp_path / "tf_model.h5", variant, params)


def keras_layers(params, name):
    """Return the layers in order with their weights, as Keras' applications name them."""
    conv, norm = ("kernel", "bias"), ("gamma", "beta")

    def weights(module, path, names):
        ours = ("kernel", "bias") if names is conv else ("scale", "bias")
        return [(f"{path}/{theirs}", params[f"{module}/{our}"]) for theirs, our in zip(names, ours, strict=True)]

    layers = {f"{name}_prestem_normalization": []}
    layers[f"{name}_stem"] = weights("stem_conv", f"{name}_stem_conv", conv) + weights(
        "stem_norm", f"{name}_stem_layernorm", norm
    )
    for s, b in sorted({tuple(int(p[-1]) for p in n.split("/")[:2]) for n in params if "/block_" in n}):
        if s and not b:
            i = s - 1
            layers[f"{name}_downsampling_block_{i}"] = weights(
                f"stage_{s}/downsample_norm", f"{name}_downsampling_layernorm_{i}", norm
            ) + weights(f"stage_{s}/downsample_conv", f"{name}_downsampling_conv_{i}", conv)
        ours, theirs = f"stage_{s}/block_{b}", f"{name}_stage_{s}_block_{b}"
        layers[f"{theirs}_depthwise_conv"] = weights(f"{ours}/depthwise", f"{theirs}_depthwise_conv", conv)
        layers[f"{theirs}_layernorm"] = weights(f"{ours}/norm", f"{theirs}_layernorm", norm)
        layers[f"{theirs}_pointwise_conv_1"] = weights(f"{ours}/expand", f"{theirs}_pointwise_conv_1", conv)
        layers[f"{theirs}_pointwise_conv_2"] = weights(f"{ours}/project", f"{theirs}_pointwise_conv_2", conv)
        layers[f"{theirs}_layer_scale"] = [("Variable", params[f"{ours}/layer_scale"])]
    layers[f"{name}_head_layernorm"] = weights("head_norm", f"{name}_head_layernorm", norm)
    layers[f"{name}_head_dense"] = weights("head", f"{name}_head_dense", conv)
    return layers


def write_keras_2(path, layers):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer, weights in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array([f"{name}:0".encode() for name, _ in weights], dtype="S")
            for name, array in weights:
                group[f"{name}:0"] = array


@pytest.mark.parametrize("variant", cases(*((variant,) for variant in V1)))
def test_keras_2(variant, params_of, tmp_path):
    params = params_of(variant)
    write_keras_2(tmp_path / "weights.h5", keras_layers(params, variant))
    assert_loads(tmp_path / "weights.h5", variant, params)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("variant", cases(*((variant,) for variant in V1)))
def test_keras_without_the_top_says_that_its_norm_was_never_trained(variant, trained, params_of, tmp_path, caplog):
    params = params_of(variant)
    if not trained:
        params["head_norm/scale"][:], params["head_norm/bias"][:] = 1, 0
    layers = keras_layers(params, variant)
    del layers[f"{variant}_head_dense"]
    norm = layers.pop(f"{variant}_head_layernorm")
    layers["layer_normalization"] = [(f"layer_normalization/{name.rpartition('/')[2]}", a) for name, a in norm]
    write_keras_2(tmp_path / "notop.h5", layers)
    loaded = flatten_dict(load_weights(tmp_path / "notop.h5", create_model(variant, CLASSES)), sep="/")
    for name in params.keys() - {"head/kernel", "head/bias"}:
        np.testing.assert_array_equal(loaded[name], params[name], err_msg=name)
    assert ("never trained" in caplog.text) == (not trained)
    assert re.search(r"notop\.h5: the head .*\b7 classes", caplog.text)


@pytest.mark.parametrize("layout", ["facebook", "hugging face dinov3", "later hugging face dinov3", "timm"])
def test_dinov3_has_a_final_norm_and_no_head(layout, params_of, written_as, tmp_path):
    params = {name: array for name, array in params_of("test_convnext").items() if not name.startswith("head/")}
    tensors = written_as(layout.removeprefix("later "), params)
    if layout == "facebook":  # Its final norm has a second name.
        tensors |= {f"norms.3.{leaf}": tensors[f"norm.{leaf}"] for leaf in ("weight", "bias")}
    if layout.startswith("later"):
        tensors = {name if name.startswith("layer_norm") else f"model.{name}": a for name, a in tensors.items()}
    save_file(tensors, tmp_path / "dinov3.safetensors")
    assert read_weights_info(tmp_path / "dinov3.safetensors").num_classes is None
    loaded = flatten_dict(
        load_weights(tmp_path / "dinov3.safetensors", create_model("test_convnext", CLASSES)), sep="/"
    )
    for name, array in params.items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("layout", "norms"),
    [("facebook", "norm{}"), ("hugging face", "hidden_states_norms.stage{}"), ("torchvision", None), ("timm", None)],
)
def test_v1_without_head_and_final_norm_gets_new_ones(layout, norms, params_of, written_as, tmp_path, caplog):
    params = {name: array for name, array in params_of("test_convnext").items() if not name.startswith("head")}
    tensors = written_as(layout, params)
    for i in range(4) if norms else ():  # A detector's backbone normalizes each stage's output.
        tensors |= {f"{norms.format(i)}.{leaf}": np.ones(3, np.float32) for leaf in ("weight", "bias")}
    save_file(tensors, tmp_path / "w.safetensors")
    loaded = flatten_dict(load_weights(tmp_path / "w.safetensors", create_model("test_convnext", CLASSES)), sep="/")
    for name, array in params.items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)
    assert (loaded["head_norm/scale"] == 1).all()
    assert re.search(rf"w\.safetensors: the head and final norm .*\b{CLASSES} classes", caplog.text)


def test_a_head_without_its_norm_is_refused(params_of, written_as, tmp_path):
    params = {name: array for name, array in params_of("test_convnext").items() if not name.startswith("head_norm")}
    save_file(written_as("timm", params), tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"- head_norm/scale \[64\]"):
        load_weights(tmp_path / "w.safetensors", create_model("test_convnext", CLASSES))


@pytest.mark.parametrize("prefix", ["", "layers/functional/"])
@pytest.mark.parametrize("variant", cases(*((variant,) for variant in V1)))
def test_keras_3_by_number(variant, prefix, params_of, write_keras_3, tmp_path):
    params = params_of(variant)
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        write_keras_3(file, params, prefix)
    assert read_weights_info(tmp_path / "model.weights.h5", variant).variant == variant
    loaded = flatten_dict(load_weights(tmp_path / "model.weights.h5", create_model(variant, CLASSES)), sep="/")
    assert loaded.keys() == params.keys()
    for name, array in params.items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)


@pytest.mark.parametrize("key", ["blocks.0.dwconv.weight", "blocks.0.conv_dw.weight"])
def test_an_isotropic_convnext_is_refused(key, tmp_path):
    save_file({"stem.weight": np.zeros((8, 3, 16, 16)), key: np.zeros((8, 1, 7, 7))}, tmp_path / "iso.safetensors")
    with pytest.raises(DataError, match=r"iso\.safetensors: .*isotropic"):
        load_weights(tmp_path / "iso.safetensors", create_model("convnext_atto", 7))
