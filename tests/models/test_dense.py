"""Our dense layers and patch convolutions are Flax's, with the same parameters, and only faster."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from bloodcell_jax.models.activations import gelu
from bloodcell_jax.models.dense import Dense, PatchConv

INIT = nn.initializers.truncated_normal(0.02)
DTYPES = (jnp.float32, jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def params_outputs_and_gradients(module, x):
    params = module.init(jax.random.key(1), x)["params"]
    outputs, vjp = jax.vjp(lambda params, x: module.apply({"params": params}, x), params, x)
    cotangent = jax.random.normal(jax.random.key(2), outputs.shape)
    return params, (outputs, *vjp(cotangent))


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (Dense(7, *DTYPES, INIT), nn.Dense(7, kernel_init=INIT), (2, 3, 5, 4)),
        # Many rows: the kernel's gradient is found in two halves, transposed where the output is the narrower.
        (Dense(7, *DTYPES, INIT), nn.Dense(7, kernel_init=INIT), (3, 4, 4, 5)),
        (Dense(3, *DTYPES, INIT), nn.Dense(3, kernel_init=INIT), (3, 4, 4, 5)),
        (PatchConv(6, 2, *DTYPES, INIT), nn.Conv(6, (2, 2), 2, padding="VALID", kernel_init=INIT), (2, 6, 8, 3)),
        # What does not fill a patch is left out, as the published models do with odd maps.
        (PatchConv(5, 4, *DTYPES, INIT), nn.Conv(5, (4, 4), 4, padding="VALID", kernel_init=INIT), (1, 9, 14, 3)),
    ],
    ids=["dense", "many rows, wider", "many rows, narrower", "downsampling", "stem of an odd image"],
)
def test_same_parameters_outputs_and_gradients_as_flax(ours, theirs, shape):
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    (params, found), (expected_params, expected) = (params_outputs_and_gradients(m, x) for m in (ours, theirs))
    jax.tree.map(np.testing.assert_array_equal, params, expected_params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)


def test_bfloat16_products_are_summed_in_float32():
    x = jnp.ones((1, 1024), jnp.bfloat16)
    params = {"kernel": jnp.full((1024, 1), 1 + 2**-7), "bias": jnp.zeros(1)}
    # A sum in bfloat16 stalls at 256; 1032 has 8 bits.
    assert Dense(1, jnp.bfloat16, jnp.float32, INIT).apply({"params": params}, x) == 1032


def test_gelu_and_its_slope():
    x = jnp.linspace(-9, 9, 1001)
    np.testing.assert_allclose(gelu(x), jax.nn.gelu(x, approximate=False), atol=1e-6)
    functions = (gelu, lambda x: jax.nn.gelu(x, approximate=False))
    slope, expected = (jax.jit(jax.vmap(jax.grad(f)))(x) for f in functions)
    np.testing.assert_allclose(slope, expected, atol=1e-6)
