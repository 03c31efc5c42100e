"""The layers that the benchmark finds in a network, and their FLOPs against the compiler's count of each product."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax import lax

from bloodcell_jax.models import create_model
from bloodcell_jax.models.dense import Dense, PatchConv
from bloodcell_jax.models.flops import forward_flops
from bloodcell_jax.models.layers import BLOCK, DEPTHWISE, MATRIX, NORM, layers_of

MODELS = [
    ("convnext_atto", {"stem_stride": 2}),
    ("convnext_nano_ols", {}),
    ("convnextv2_atto", {}),
    ("test_convnext3", {}),
    ("custom_cnn", {}),
]


def counted_by_the_compiler(layer):
    """Return XLA's FLOPs of the layer's product alone: no bias, and no padding, which it would count or not."""
    kernel = jax.ShapeDtypeStruct(layer.params["kernel"].shape, jnp.float32)
    places, channels = layer.output.shape[:-1], kernel.shape[-2]
    if isinstance(layer.module, nn.Dense | Dense):
        images = jax.ShapeDtypeStruct((*places, channels), jnp.float32)
        return jax.jit(jnp.matmul).lower(images, kernel).cost_analysis()["flops"]
    strides = {nn.Conv: "strides", PatchConv: "size"}.get(type(layer.module))
    strides = getattr(layer.module, strides) if strides else 1
    strides = (strides or 1,) * 2
    size = [(place - 1) * stride + k for place, stride, k in zip(places[1:], strides, kernel.shape, strict=False)]
    groups = layer.output.shape[-1] if layer.kind == DEPTHWISE else 1
    images = jax.ShapeDtypeStruct((places[0], *size, groups * channels), jnp.float32)

    def product(images, kernel):
        return lax.conv_general_dilated(
            images, kernel, strides, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    return jax.jit(product).lower(images, kernel).cost_analysis()["flops"]


@pytest.mark.parametrize(("variant", "options"), MODELS)
def test_each_layer_costs_what_the_compiler_counts(variant, options):
    model = create_model(variant, 8, **options)
    layers = [layer for layer in layers_of(model, 64, 4) if layer.kind in (MATRIX, DEPTHWISE)]
    for layer in layers:
        assert layer.flops == pytest.approx(counted_by_the_compiler(layer), rel=0.01), layer
    assert sum(layer.count * layer.flops for layer in layers) == 4 * forward_flops(model, 64)


def test_every_layer_is_found_once():
    layers = layers_of(create_model("convnext_tiny", 8, remat=True), 96, 2)
    counts = {kind: sum(layer.count for layer in layers if layer.kind == kind) for kind in (BLOCK, DEPTHWISE, NORM)}
    assert counts == {BLOCK: 18, DEPTHWISE: 18, NORM: 18 + 3 + 2}
    blocks = {layer.images.shape: layer.count for layer in layers if layer.kind == BLOCK}
    assert blocks == {(2, 24, 24, 96): 3, (2, 12, 12, 192): 3, (2, 6, 6, 384): 9, (2, 3, 3, 768): 3}
