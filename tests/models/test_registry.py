"""Every network of the table is what `Network` says, on shapes alone, and an option that it lacks is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax.config import ModelConfig
from bloodcell_jax.errors import UsageError
from bloodcell_jax.models import create_model
from bloodcell_jax.models.flops import forward_flops
from bloodcell_jax.models.network import leaves_by_path
from bloodcell_jax.models.registry import build_model, init_params

STAGES = {f"stage_{i}" for i in range(4)}


# One of each kind: the variants of a kind differ in depth and width alone, and tracing all of them takes a minute.
KINDS = ("custom_cnn", "test_convnext2", "test_convnext3", "convnext_atto_ols", "convnext_nano_ols", "convnextv2_atto")


@pytest.mark.parametrize("name", [*KINDS, "convnext_tiny_hnf"])
def test_a_network_is_extract_and_then_classify(name):
    model = create_model(name, 5)
    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0), 32))
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    apply = lambda method, x: jax.eval_shape(lambda p, x: model.apply({"params": p}, x, method=method), params, x)  # noqa: E731
    logits, features = apply("__call__", images)
    extracted, maps = apply("extract", images)
    again, pooled = apply("classify", extracted)
    assert extracted.shape == (2, model.feature_width)
    assert logits.shape == again.shape == (2, 5)
    assert logits.dtype == extracted.dtype == jnp.float32
    assert set(features) == {"stem", "pooled"} | STAGES
    assert set(maps) == {"stem"} | STAGES
    assert features["pooled"].shape == pooled.shape == (2, model.feature_width)
    assert forward_flops(model, 32) > 2 * model.feature_width * 5


@pytest.mark.parametrize("name", ["custom_cnn", "test_convnext2"])
def test_classify_of_extract_is_the_network(name):
    model = create_model(name, 3)
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    keys = jax.random.split(jax.random.key(2), 2)

    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0), 32))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: 0.1 * rng.standard_normal(leaf.shape, np.float32), shapes)

    @jax.jit
    def both_ways(params, images):

        def apply(method, x):
            return model.apply({"params": params}, x, train=True, keys=keys, method=method)[0]

        return apply("__call__", images), apply("classify", apply("extract", images)), apply("extract", images)

    logits, again, extracted = both_ways(params, images)
    np.testing.assert_allclose(logits, again, rtol=1e-6)
    assert np.ptp(logits) > 0
    behind = jax.eval_shape(lambda: model.init(jax.random.key(0), extracted, method="classify"))["params"]
    assert {path.split("/")[0] for path in leaves_by_path(behind)} <= {"head", "head_norm"}


def test_an_option_that_a_network_lacks_is_named():
    with pytest.raises(UsageError, match=r"custom_cnn.* drop_path;.* dropout"):
        create_model("custom_cnn", 3, drop_path=0.1)
    with pytest.raises(UsageError, match=r"convnext_tiny.* dropout;.* drop_path"):
        create_model("convnext_tiny", 3, dropout=0.1)
    with pytest.raises(UsageError, match=r"config\.model\.drop_path=0\.1.*custom_cnn.*--config\.model\.drop_path=0"):
        build_model(ModelConfig(variant="custom_cnn", num_classes=3, drop_path=0.1))
