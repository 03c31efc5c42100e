"""FLOPs by formula against what the compiler counts in a convolution-based program."""

import jax
import jax.numpy as jnp
import pytest

from bloodcell_jax.models import create_model
from bloodcell_jax.models.flops import forward_flops


@pytest.mark.parametrize(
    ("variant", "gigaflops"),
    # timm's table of multiply-adds at 224 px, times two.
    [("convnext_atto", 0.55), ("convnext_tiny", 4.47), ("convnext_base", 15.38), ("convnextv2_tiny", 4.47)],
)
def test_published_multiply_adds(variant, gigaflops):
    assert forward_flops(create_model(variant, 1000), 224) / 2e9 == pytest.approx(gigaflops, rel=0.01)


@pytest.mark.parametrize(
    ("variant", "options"),
    [("convnext_atto", {}), ("convnext_atto", {"stem_stride": 2}), ("convnext_nano_ols", {}), ("custom_cnn", {})],
)
def test_the_compiler_counts_little_more(variant, options):
    model = create_model(variant, 8, **options)
    images = jnp.zeros((1, 96, 96, 3))
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    lowered = jax.jit(lambda p, x: model.apply(p, x)[0]).trace(params, images).lower()
    counted = lowered.cost_analysis()["flops"]
    # Norms and activations come on top, and padding is counted or not.
    assert 0.9 < counted / forward_flops(model, 96) < 1.25
