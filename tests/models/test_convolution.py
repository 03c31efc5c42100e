"""The convolution with a gradient of its own gives what flax and XLA give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from bloodcell_jax.models.convolution import Conv, conv


def xla_conv(images, kernel):
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def gradients(function, images, kernel, cotangent):
    return jax.jit(lambda i, k, c: jax.vjp(function, i, k)[1](c))(images, kernel, cotangent)


@pytest.mark.parametrize("n", [1, 7, 12, 64, 68])
@pytest.mark.parametrize("size", [(3, 3), (1, 5)])
def test_it_is_xla_s_convolution_and_so_are_its_gradients(n, size):
    rng = np.random.default_rng(n)
    images = rng.standard_normal((n, 7, 6, 3), np.float32)
    kernel = rng.standard_normal((*size, 3, 4), np.float32)
    cotangent = rng.standard_normal((n, 7, 6, 4), np.float32)
    np.testing.assert_array_equal(jax.jit(conv)(images, kernel), jax.jit(xla_conv)(images, kernel))
    found, expected = (gradients(function, images, kernel, cotangent) for function in (conv, xla_conv))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other platforms take the whole batch at once")
@pytest.mark.parametrize(("n", "parts"), [(1, 1), (7, 1), (12, 3), (64, 16), (68, 4), (256, 16)])
def test_how_many_parts_a_batch_has_on_a_cpu(n, parts):
    """At most 16, of 4 images or more each; 68 images have no divisor from 5 to 16."""
    images, kernel = jnp.zeros((n, 4, 4, 3)), jnp.zeros((3, 3, 3, 3))
    program = jax.jit(lambda i, k, c: jax.vjp(lambda k: conv(i, k), k)[1](c)).lower(images, kernel, images)
    # One convolution more is the forward pass, which the compiler drops.
    assert program.compile().as_text().count(" convolution(") == parts


def test_parts_in_bfloat16_are_summed_in_float32():
    """16 parts of 4 * 1.703125 each are 109; a sum in bfloat16 rounds to another number on the way."""
    ones = jnp.ones((64, 1, 1, 1), jnp.bfloat16)
    _, gradient = gradients(conv, ones, ones[:1], 1.703125 * ones)
    assert (gradient.dtype, float(gradient.squeeze())) == (jnp.bfloat16, 109)


def test_its_layer_is_flax_s():
    images = np.random.default_rng(0).standard_normal((2, 8, 8, 3), np.float32)
    ours, peer = Conv(5, (3, 3), jnp.dtype(jnp.float32)), nn.Conv(5, (3, 3))
    variables = ours.init(jax.random.key(0), images)
    jax.tree.map(np.testing.assert_array_equal, variables, peer.init(jax.random.key(0), images))
    np.testing.assert_allclose(ours.apply(variables, images), peer.apply(variables, images), rtol=1e-6, atol=1e-6)
