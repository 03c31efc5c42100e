""".keras archives and the place of Keras' last norm: read from the description, asked for, or refused."""

import io
import json
import re
import zipfile

import h5py
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from bloodcell_jax import cli
from bloodcell_jax.errors import DataError
from bloodcell_jax.models import create_model
from bloodcell_jax.weights import load_weights, read_weights_info
from bloodcell_jax.weights.keras_archive import MAX_CONFIG_BYTES, last_layers

SMALL = "test_convnext"
POOL, NORM, HEAD = "GlobalAveragePooling2D", "LayerNormalization", "Dense"


@pytest.fixture(scope="module")
def params(random_params):
    return random_params(create_model(SMALL, 7))


@pytest.fixture(scope="module")
def tiny(random_params):
    """Return the parameters of convnext_tiny; both orders have the same."""
    return random_params(create_model("convnext_tiny", 7))


def functional(*classes):
    return {"class_name": "Functional", "config": {"layers": [{"class_name": name} for name in classes]}}


def flat(*tail):
    """Return the description of a model whose graph holds the ConvNeXt's layers beside the user's own."""
    stem = {"class_name": "Sequential", "config": {"layers": [{"class_name": "Conv2D"}, {"class_name": NORM}]}}
    model = functional("Conv2D", NORM, HEAD, "Activation", HEAD, "LayerScale", "Activation", "Add", *tail)
    return {**model, "config": {"layers": [{"class_name": "InputLayer"}, stem, *model["config"]["layers"]]}}


def nested(inner, *outer):
    """Return the description of a Sequential whose first layer is the ConvNeXt."""
    return {"class_name": "Sequential", "config": {"layers": [flat(*inner), *({"class_name": n} for n in outer)]}}


@pytest.fixture
def archive(write_keras_3, tmp_path):
    """Return a function that writes a .keras archive of a description and parameters."""

    def write(config, params, prefix="", compression=zipfile.ZIP_STORED, name="model.keras"):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            write_keras_3(file, params, prefix)
            file["optimizer/vars/0"] = np.int64(3)
            file[f"{prefix}layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)
        with zipfile.ZipFile(tmp_path / name, "w", compression) as file:
            file.writestr("metadata.json", '{"keras_version": "3.15.1"}')
            file.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
            file.writestr("model.weights.h5", buffer.getvalue())
        return tmp_path / name

    return write


def assert_loads(source, variant, params):
    loaded = flatten_dict(load_weights(source, create_model(variant, 7)), sep="/")
    assert loaded.keys() == params.keys()
    for name, array in params.items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("config", "prefix"),
    [
        (flat(POOL, NORM, HEAD), ""),
        (flat(POOL, NORM, "Dropout", HEAD, "Activation"), ""),
        (nested([POOL, NORM], "Dropout", HEAD), "layers/functional/"),
    ],
)
def test_an_archive_with_the_norm_after_the_pooling_needs_no_variant(config, prefix, params, archive):
    path = archive(config, params, prefix)
    assert read_weights_info(path).variant == SMALL
    assert_loads(path, SMALL, params)


@pytest.mark.parametrize(
    ("config", "prefix"),
    [(flat(NORM, POOL, "Dropout", HEAD), ""), (nested([NORM], POOL, "Dropout", HEAD), "layers/functional/")],
)
def test_an_archive_with_the_norm_before_the_pooling_is_the_variant_that_has_it_so(config, prefix, tiny, archive):
    path = archive(config, tiny, prefix)
    info = read_weights_info(path)
    assert (info.variant, info.num_classes) == ("convnext_tiny_hnf", 7)
    assert_loads(path, "convnext_tiny_hnf", tiny)
    with pytest.raises(DataError, match=r"model\.keras: .*\bbefore pooling\b.*\bafter\b"):
        load_weights(path, create_model("convnext_tiny", 7))


def test_an_order_that_no_variant_has_is_refused_and_the_network_alone_can_be_taken(params, archive, caplog):
    path = archive(nested([NORM], POOL, HEAD), params, "layers/functional/")
    with pytest.raises(DataError, match=r"model\.keras: .*\bbefore the pooling"):
        read_weights_info(path)
    source = f"{path}#layers/functional"
    assert read_weights_info(source).num_classes is None
    loaded = flatten_dict(load_weights(source, create_model(SMALL, 7)), sep="/")
    np.testing.assert_array_equal(loaded["head_norm/scale"], params["head_norm/scale"])
    assert re.search(r"model\.keras: the head .*drawn anew", caplog.text)


@pytest.mark.parametrize("prefix", ["", "layers/functional/"])
def test_bare_weights_with_a_head_need_the_variant(prefix, tiny, write_keras_3, tmp_path, caplog):
    path = tmp_path / "flat.weights.h5"
    with h5py.File(path, "w") as file:
        write_keras_3(file, tiny, prefix)
    with pytest.raises(DataError, match=r"flat\.weights\.h5: .*=convnext_tiny\b.*=convnext_tiny_hnf\b") as error:
        read_weights_info(path)
    assert "\n" not in str(error.value)
    for variant, place in (("convnext_tiny", "after"), ("convnext_tiny_hnf", "before")):
        caplog.clear()
        assert read_weights_info(path, variant).variant == variant
        assert_loads(path, variant, tiny)
        assert re.search(rf"flat\.weights\.h5: .*final norm.* {place} the pooling", caplog.text)
    with pytest.raises(DataError, match=r"=convnext_tiny_hnf\b"):
        read_weights_info(path, "convnext_base")


def test_bare_weights_are_converted_as_the_variant_says(params, write_keras_3, tmp_path, capsys):
    with h5py.File(tmp_path / "flat.weights.h5", "w") as file:
        write_keras_3(file, params)
    command = ["bloodcell", "convert", f"--input={tmp_path}/flat.weights.h5", f"--output={tmp_path}/o.safetensors"]
    assert cli.main(command) == 3
    assert re.search(rf"--variant={SMALL}\b.*no variant of this size", capsys.readouterr().err)
    assert cli.main([*command, f"--variant={SMALL}"]) == 0
    assert_loads(tmp_path / "o.safetensors", SMALL, params)


def test_bare_weights_without_a_head_need_no_variant(params, write_keras_3, tmp_path):
    headless = {name: array for name, array in params.items() if not name.startswith("head/")}
    with h5py.File(tmp_path / "base.weights.h5", "w") as file:
        write_keras_3(file, headless)
    assert read_weights_info(tmp_path / "base.weights.h5").variant == SMALL


def test_an_outer_head_that_is_more_than_one_layer_is_left_out_and_said(params, archive, caplog):
    path = archive(nested([NORM], POOL, HEAD, HEAD), params, "layers/functional/")
    with zipfile.ZipFile(path) as file:
        content = io.BytesIO(file.read("model.weights.h5"))
    with h5py.File(content, "a") as file:
        file["layers/dense_1/vars/0"] = np.zeros((7, 7), np.float32)
    with h5py.File(path.with_name("two.weights.h5"), "w") as file:
        for name in h5py.File(content, "r"):
            h5py.File(content, "r").copy(name, file)
    load_weights(path.with_name("two.weights.h5"), create_model(SMALL, 7))
    assert re.search(r"two\.weights\.h5: 3 tensors .*layers/dense/vars/0", caplog.text)
    assert "drawn anew" in caplog.text


@pytest.mark.parametrize(
    "tail",
    [
        [NORM, "GlobalMaxPooling2D", HEAD],
        ["GlobalMaxPooling2D", NORM, HEAD],
        [NORM, POOL, "BatchNormalization", HEAD],
        [NORM, "Flatten", HEAD],
    ],
)
def test_last_layers_that_no_variant_computes_are_refused_whatever_the_variant(tail, tiny, archive):
    path = archive(flat(*tail), tiny)
    for variant in (None, "convnext_tiny", "convnext_tiny_hnf"):
        with pytest.raises(DataError, match=rf"model\.keras: .*{', '.join(tail)}"):
            read_weights_info(path, variant)
    with pytest.raises(DataError, match=rf"model\.keras: .*{tail[0]}"):
        load_weights(path, create_model("convnext_tiny", 7))


def test_a_pooling_of_another_kind_leaves_the_network_alone_usable(tiny, archive):
    path = archive(nested([NORM], "GlobalMaxPooling2D", HEAD), tiny, "layers/functional/")
    with pytest.raises(DataError, match=r"GlobalMaxPooling2D, .*model\.keras#layers/functional"):
        read_weights_info(path)
    assert read_weights_info(f"{path}#layers/functional").num_classes is None


def test_last_layers_follow_the_last_block():
    assert last_layers(["Conv2D", NORM, "Add", HEAD, "Add", "Dropout", POOL, NORM, HEAD]) == (POOL, NORM, HEAD)
    assert last_layers([POOL, NORM, HEAD]) == ()


@pytest.mark.parametrize(
    "config", [{}, {"config": 3}, {"config": {"layers": "Dense"}}, {"config": {"layers": [1, None, {"config": []}]}}]
)
def test_a_description_that_shows_nothing_leaves_the_order_open(config, tiny, archive):
    path = archive(config, tiny)
    with pytest.raises(DataError, match=r"model\.keras: .*=convnext_tiny\b.*=convnext_tiny_hnf\b"):
        read_weights_info(path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("not json", "config.json"),
        ("[1, 2]", "config.json"),
        ("[" * 10**5, "config.json"),
        (" " * (MAX_CONFIG_BYTES + 1), f"{MAX_CONFIG_BYTES:,}"),
    ],
)
def test_a_description_that_is_none_ends_in_one_line(config, message, params, archive, capsys, tmp_path):
    path = archive(config, params)
    assert cli.main(["bloodcell", "convert", f"--input={path}", f"--output={tmp_path}/o.safetensors"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(rf"model\.keras: .*{re.escape(message)}", error)


def test_a_compressed_archive_is_refused_unread(params, archive):
    path = archive(flat(POOL, NORM, HEAD), params, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=r"model\.keras: .*\bconfig\.json is compressed"):
        read_weights_info(path)


def test_weights_that_are_no_hdf5_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as file:
        file.writestr("config.json", "{}")
        file.writestr("model.weights.h5", b"not HDF5")
        file.writestr("../../escaped", b"x")
    with pytest.raises(DataError, match=r"m\.keras: .*HDF5"):
        read_weights_info(tmp_path / "m.keras")
    assert not (tmp_path / "../../escaped").exists()


def test_links_out_of_the_archive_are_refused(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["w"] = np.zeros(2)
    (tmp_path / "secret").write_bytes(bytes(16))
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("layers/w", (2,), np.float64, external=[(str(tmp_path / "secret"), 0, 16)])
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as file:
        file.writestr("config.json", "{}")
        file.writestr("model.weights.h5", content.getvalue())
    with pytest.raises(DataError, match=r"m\.keras: .*\blayers/w\b.* in another file"):
        read_weights_info(tmp_path / "m.keras")


def test_truncated_archives_are_refused(params, archive):
    path = archive(flat(POOL, NORM, HEAD), params)
    whole = path.read_bytes()
    for length in (30, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"model\.keras: "):
            read_weights_info(path)
