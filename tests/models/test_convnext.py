"""What ConvNeXt promises beside its numbers, which the parity tests hold."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from bloodcell_jax.errors import UsageError
from bloodcell_jax.models import create_model
from bloodcell_jax.models.activations import gelu
from bloodcell_jax.models.convnext import Block, ConvNeXt, drop_path
from bloodcell_jax.models.norms import GlobalResponseNorm, LayerNorm
from bloodcell_jax.models.variants import VARIANTS, Variant

# timm 1.0's counts with a head of 1,000 classes.
PUBLISHED_COUNTS = {
    "convnext_atto": 3_695_520,
    "convnext_femto": 5_217_784,
    "convnext_pico": 9_045_672,
    "convnext_nano": 15_593_560,
    "convnext_tiny": 28_589_128,
    "convnext_small": 50_223_688,
    "convnext_base": 88_591_464,
    "convnext_large": 197_767_336,
    "convnextv2_atto": 3_708_400,
    "convnextv2_femto": 5_233_240,
    "convnextv2_pico": 9_066_280,
    "convnextv2_nano": 15_623_800,
    "convnextv2_tiny": 28_635_496,
    "test_convnext": 272_128,
    "test_convnext2": 477_800,
    "test_convnext3": 468_840,
}


# Two blocks have each kind of parameter.
SHORT = Variant((1, 0, 0, 1), (32, 32, 32, 64), layer_scale=1.0, kernel_sizes=(3, 3, 3, 3))


def shapes_of(model, size=96):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3))))["params"]


@pytest.mark.parametrize("variant", PUBLISHED_COUNTS)
def test_a_variant_has_the_published_number_of_parameters(variant):
    shapes = shapes_of(create_model(variant, 1000))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == PUBLISHED_COUNTS[variant]


# One of each stem and head takes every size; what the others add is width and depth.
ONE_OF_EACH = ["convnext_atto", "convnext_atto_ols", "convnext_nano_ols", "convnext_tiny_hnf", "convnextv2_atto"]


@pytest.mark.parametrize(
    ("variant", "size"),
    [
        *[(v, size) for v in ONE_OF_EACH for size in (32, 33, 101)],
        *[pytest.param(v, 96, marks=pytest.mark.exhaustive) for v in VARIANTS],
        *[pytest.param(v, 224, marks=pytest.mark.exhaustive) for v in ONE_OF_EACH],
    ],
)
def test_every_variant_takes_any_size_from_32(variant, size):
    model = create_model(variant, 8)
    images = jnp.zeros((2, size, size, 3))
    logits, features = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images)[0])
    assert (logits.shape, logits.dtype) == ((2, 8), jnp.float32)
    assert set(features) == {"stem", "stage_0", "stage_1", "stage_2", "stage_3", "pooled"}
    dims = VARIANTS[variant].dims
    assert [features[f"stage_{i}"].shape[-1] for i in range(4)] == list(dims)
    assert features["pooled"].shape == (2, dims[3])


@pytest.mark.parametrize(("stem_stride", "sides"), [(4, [24, 12, 6, 3]), (2, [48, 24, 12, 6])])
@pytest.mark.parametrize("variant", ["convnext_atto", "convnext_atto_ols"])
def test_the_stem_stride_sets_the_maps(variant, stem_stride, sides):
    model = create_model(variant, 8, stem_stride=stem_stride)
    _, features = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros((1, 96, 96, 3)))[0])
    assert [features[f"stage_{i}"].shape[1] for i in range(4)] == sides


def test_a_stem_of_stride_2_is_the_published_kernel_moved_by_half_its_stride():
    rng = np.random.default_rng(0)
    images = rng.standard_normal((2, 33, 33, 3), np.float32)
    usual, fine = (create_model("test_convnext2", 8, stem_stride=stride) for stride in (4, 2))
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes_of(usual))
    # Compiled, what is not asked for is not computed.
    stem = jax.jit(lambda model, images: model.apply({"params": params}, images)[1]["stem"], static_argnums=0)
    # With padding 1 its places begin at pixels -1, 1, 3, ...; every second of them is one of stride 4 from pixel 1 on.
    np.testing.assert_allclose(stem(fine, images)[:, 1::2, 1::2], stem(usual, images[:, 1:, 1:]), atol=1e-5)


@pytest.mark.parametrize(("stem_stride", "smallest"), [(4, 32), (2, 16)])
def test_smaller_images_than_the_network_reduces_to_nothing_are_refused(stem_stride, smallest):
    model = create_model("convnext_atto", 8, stem_stride=stem_stride)
    shapes_of(model, smallest)
    with pytest.raises(UsageError, match=f"images of {smallest - 1}x.* to {smallest}x{smallest} or more"):
        shapes_of(model, smallest - 1)


def test_initial_weights_follow_the_paper():
    model = ConvNeXt(replace(SHORT, layer_scale=1e-6), 8, head_init_scale=0.5)
    params = flatten_dict(jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"], sep="/")
    for path, leaf in params.items():
        kind = path.rsplit("/", 1)[-1]
        if kind == "bias":
            assert not leaf.any(), path
        elif kind == "scale":
            assert (leaf == 1).all(), path
        elif kind == "layer_scale":
            np.testing.assert_array_equal(leaf, np.float32(1e-6))
        else:
            std = 0.02 * (0.5 if path.startswith("head") else 1)
            # Cut at two standard deviations, a truncated normal keeps its std here: JAX rescales it.
            assert abs(leaf.std() / std - 1) < 0.15, path
            assert abs(leaf).max() < 2.4 * std, path


def test_gelu_is_the_error_function_s():
    x = jnp.linspace(-8, 8, 10_001)
    np.testing.assert_allclose(gelu(x), jax.nn.gelu(x, approximate=False), atol=2e-6)
    tanh = jax.nn.gelu(x, approximate=True)
    assert abs(gelu(x) - tanh).max() > 1e-4


def test_drop_path_depends_on_key_and_block_alone():
    branch = jnp.ones((6, 2, 2, 3))
    keys = jax.random.split(jax.random.key(1), 6)
    whole = drop_path(branch, keys, 5, 0.5)
    halves = jnp.concatenate([drop_path(branch[:3], keys[:3], 5, 0.5), drop_path(branch[3:], keys[3:], 5, 0.5)])
    np.testing.assert_array_equal(whole, halves)
    many = jax.random.split(jax.random.key(2), 4000)
    kept = drop_path(jnp.ones((4000, 1, 1, 1)), many, 0, 0.75).ravel()
    assert set(np.unique(kept)) == {0.0, np.float32(1 / 0.75)}
    assert abs((kept > 0).mean() - 0.75) < 0.03
    other = drop_path(jnp.ones((4000, 1, 1, 1)), many, 1, 0.75).ravel()
    assert 0.55 < ((kept > 0) == (other > 0)).mean() < 0.70, "blocks are independent: 0.75^2 + 0.25^2"


def test_drop_path_rises_linearly_and_needs_keys():
    model = create_model("convnext_atto", 8, drop_path=0.3)
    assert model._drop_path_rates() == pytest.approx([0.3 * i / 11 for i in range(12)])
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes_of(model))
    with pytest.raises(ValueError, match="needs keys"):
        model.apply({"params": params}, jnp.zeros((1, 32, 32, 3)), train=True)


@pytest.mark.parametrize("variant", ["test_convnext2", "convnextv2_atto", "convnext_atto_ols"])
def test_parameters_take_the_dtype_asked_for(variant):
    model = create_model(variant, 8, param_dtype=jnp.bfloat16)
    images = jnp.zeros((1, 32, 32, 3))
    (logits, _), params = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images))
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}


def test_grn_of_a_channel_that_is_off_has_a_gradient():
    x = jnp.stack([jnp.zeros((1, 4, 4)), jnp.ones((1, 4, 4))], axis=-1)
    params = {"params": {"scale": jnp.ones(2), "bias": jnp.zeros(2)}}
    module = GlobalResponseNorm(jnp.float32, jnp.float32)
    gradient = jax.grad(lambda x: module.apply(params, x).sum())(x)
    assert jnp.isfinite(gradient).all()


def test_statistics_and_layer_scale_are_float32_under_bfloat16():
    # In bfloat16 the deviations from a mean of 300 would be lost to steps of 2, and 1 - 1.001 would be 0.
    x = (300 + 8 * jax.random.normal(jax.random.key(0), (4, 64))).astype(jnp.bfloat16)
    params = {"params": {"scale": jnp.ones(64), "bias": jnp.zeros(64)}}
    half, whole = (LayerNorm(1e-6, dtype, jnp.float32).apply(params, x) for dtype in (jnp.bfloat16, jnp.float32))
    np.testing.assert_array_equal(half, whole.astype(jnp.bfloat16))

    x = -jnp.ones((1, 4, 4, 32), jnp.bfloat16)
    block = Block(VARIANTS["test_convnext2"], 7, jnp.bfloat16, jnp.float32)
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, None))["params"]
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    params["project"]["bias"] += 1
    params["layer_scale"] += np.float32(1.001)
    np.testing.assert_allclose(jax.jit(block.apply)({"params": params}, x).astype(np.float32), 0.001, rtol=0.01)


def test_bfloat16_stays_near_float32_and_remat_changes_nothing():
    rng = np.random.default_rng(0)
    images = rng.standard_normal((2, 32, 32, 3), np.float32)
    plain, half, again = (ConvNeXt(SHORT, 8, **options) for options in ({}, {"dtype": jnp.bfloat16}, {"remat": True}))
    params = {
        path: rng.standard_normal(leaf.shape, np.float32) * (0.1 if len(leaf.shape) > 1 else 0.2)
        + (len(leaf.shape) == 1)
        for path, leaf in flatten_dict(shapes_of(plain), sep="/").items()
    }
    params = {"params": unflatten_dict(params, sep="/")}

    def logits_and_gradients(model):
        def squares(params):
            logits, _ = model.apply(params, images)
            return (logits**2).sum(), logits

        (_, logits), gradients = jax.jit(jax.value_and_grad(squares, has_aux=True))(params)
        return logits, gradients

    logits, gradients = logits_and_gradients(plain)
    rounded = jax.jit(half.apply)(params, images)[0]
    assert rounded.dtype == jnp.float32
    assert 0 < abs(rounded - logits).max() < 0.03 * abs(logits).max()
    # Another program, so another order of sums.
    for ours, theirs in zip(
        jax.tree.leaves(logits_and_gradients(again)), jax.tree.leaves((logits, gradients)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5 * abs(theirs).max())


def test_blocks_in_a_loop_are_the_same_network():
    variant = replace(SHORT, depths=(1, 0, 0, 3))
    plain = ConvNeXt(variant, 8, drop_path=0.4)
    images = jax.random.normal(jax.random.key(0), (6, 32, 32, 3))
    keys = jax.random.split(jax.random.key(1), 6)
    params = jax.jit(lambda: plain.init(jax.random.key(2), images)["params"])()

    def loss_and_gradients(**options):
        def loss(params):
            return (plain.clone(**options).apply({"params": params}, images, train=True, keys=keys)[0] ** 2).sum()

        return jax.jit(jax.value_and_grad(loss))(params)

    expected = loss_and_gradients()
    for options in ({"scan_blocks": True}, {"scan_blocks": True, "remat": True}):
        for ours, theirs in zip(*map(jax.tree.leaves, (loss_and_gradients(**options), expected)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5 * abs(theirs).max())
    program = jax.jit(plain.clone(scan_blocks=True).apply).lower({"params": params}, images).as_text()
    assert program.count("stablehlo.while") == 1, "stages of more than one block"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convnext_atoo", {}), "did you mean convnext_atto"),
        (("resnet50", {}), "there are"),
        (("convnext_atto", {"activation": "relu"}), "must be one of gelu"),
        (("convnext_atto", {"depth": 3}), "has no option depth"),
        (("custom_cnn", {"drop_path": 0.1}), "custom_cnn has no option drop_path"),
    ],
)
def test_mistakes_are_named(arguments, message):
    variant, overrides = arguments
    with pytest.raises(UsageError, match=message):
        create_model(variant, 8, **overrides)
