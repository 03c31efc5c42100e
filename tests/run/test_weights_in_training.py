"""What pretrained weights decide in training."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from bloodcell_jax.config import Config, DataConfig, ModelConfig
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.models import create_model
from bloodcell_jax.models.registry import init_params
from bloodcell_jax.run.before_and_after import start_of
from bloodcell_jax.run.create import create_run
from bloodcell_jax.weights import save_weights
from bloodcell_jax.weights.info import variant_info


@pytest.fixture(scope="module")
def stored():
    """Return the parameters that `weights` holds."""
    model = create_model("test_convnext2", 10)
    drawn = jax.jit(lambda: init_params(model, jax.random.key(9), 32))()
    return jax.tree.map(lambda p: np.asarray(p) + 0.5, drawn)


@pytest.fixture
def weights(stored, tmp_path):
    info = variant_info("test_convnext2", 10, mean=(0.5, 0.5, 0.5), std=(0.4, 0.4, 0.4), licence="MIT", source="a test")
    path = tmp_path / "weights.safetensors"
    save_weights(path, stored, info)
    return path


@pytest.fixture
def config(cells, weights):
    return Config(
        data=DataConfig(source=f"npz:{cells}", image_size=32),
        model=ModelConfig(variant="test_convnext2", weights=str(weights), dtype="float32"),
    )


def test_they_fill_what_the_config_leaves_unset_and_the_head_is_drawn_anew(config, stored):
    run = create_run(config)
    model = run.config.model
    assert (model.mean, model.std) == ((0.5, 0.5, 0.5), (0.4, 0.4, 0.4))
    assert (model.norm_eps, model.activation) == (1e-5, "gelu_tanh")
    params = flatten_dict(jax.device_get(run.initial_state().params), sep="/")
    for path, value in flatten_dict(stored, sep="/").items():
        if path.startswith("head/"):
            assert params[path].shape[-1] == 3
        else:
            np.testing.assert_array_equal(params[path], value, err_msg=path)
    again = flatten_dict(jax.device_get(create_run(config).initial_state().params), sep="/")
    np.testing.assert_array_equal(params["head/kernel"], again["head/kernel"])
    other = flatten_dict(jax.device_get(create_run(replace(config, seed=1)).initial_state().params), sep="/")
    assert not np.array_equal(params["head/kernel"], other["head/kernel"])


@pytest.mark.parametrize(
    ("field", "asked", "stands"),
    [
        ("variant", "convnext_atto", "test_convnext2"),
        ("norm_eps", 1e-6, "1e-05"),
        ("activation", "gelu", "gelu_tanh"),
        ("mean", (0.1, 0.1, 0.1), "(0.5, 0.5, 0.5)"),
    ],
)
def test_a_contradiction_is_refused_with_both_values(config, field, asked, stands):
    setattr(config.model, field, asked)
    with pytest.raises(UsageError) as error:
        create_run(config)
    assert f"config.model.{field}={asked}" in str(error.value)
    assert stands in str(error.value)


def test_a_missing_file_is_named(config):
    config.model.weights = "convnext_bse.fb_in1k"
    with pytest.raises(DataError, match=r"did you mean convnext_base\.fb_in1k"):
        create_run(config)


def test_a_part_of_a_file_is_a_start_that_no_classifier_stands_for(config):
    config.model.weights += "#"
    assert start_of(create_run(config)) is None
