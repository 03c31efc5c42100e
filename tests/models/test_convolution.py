"""The convolution with a gradient of its own gives what flax and XLA give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from bloodcell_jax.models import convolution
from bloodcell_jax.models.convolution import Conv, conv


def xla_conv(images, kernel):
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def gradients(function, images, kernel, cotangent):
    return jax.jit(lambda i, k, c: jax.vjp(function, i, k)[1](c))(images, kernel, cotangent)


@pytest.fixture
def part_of_one_image(monkeypatch):
    """Let the windows of one image fill a part."""
    monkeypatch.setattr(convolution, "_MOST_WINDOW_BYTES", 1)


@pytest.mark.parametrize("n", [1, 7, 64, 67])
@pytest.mark.parametrize("size", [(3, 3), (1, 5)])
def test_it_is_xla_s_convolution_and_so_are_its_gradients(part_of_one_image, n, size):
    rng = np.random.default_rng(n)
    images = rng.standard_normal((n, 7, 6, 3), np.float32)
    kernel = rng.standard_normal((*size, 3, 4), np.float32)
    cotangent = rng.standard_normal((n, 7, 6, 4), np.float32)
    np.testing.assert_array_equal(jax.jit(conv)(images, kernel), jax.jit(xla_conv)(images, kernel))
    found, expected = (gradients(function, images, kernel, cotangent) for function in (conv, xla_conv))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other platforms take the whole batch at once")
@pytest.mark.parametrize(
    ("n", "size", "parts"),
    [(1, 96, 1), (128, 4, 1), (128, 48, 32), (7, 96, 7), (67, 96, 1), (68, 96, 34), (256, 48, 64)],
)
def test_how_many_parts_a_batch_has_on_a_cpu(n, size, parts):
    """One image of 48x48x32 has windows of 2.53 MiB, one of 96x96x32 of 10.1 MiB; a part has 11 MiB or there are 64."""
    images, kernel = jax.ShapeDtypeStruct((n, size, size, 32), jnp.float32), jnp.zeros((3, 3, 32, 1))
    cotangent = jax.ShapeDtypeStruct((n, size, size, 1), jnp.float32)
    program = jax.jit(lambda i, k, c: jax.vjp(lambda k: conv(i, k), k)[1](c)).lower(images, kernel, cotangent)
    # One convolution more is the forward pass, which the compiler drops.
    assert program.compile().as_text().count(" convolution(") == parts


def test_parts_in_bfloat16_are_summed_in_float32(part_of_one_image):
    """64 parts of 1.703125 each are 109; a sum in bfloat16 rounds to another number on the way."""
    ones = jnp.ones((64, 1, 1, 1), jnp.bfloat16)
    _, gradient = gradients(conv, ones, ones[:1], 1.703125 * ones)
    assert (gradient.dtype, float(gradient.squeeze())) == (jnp.bfloat16, 109)


def test_its_layer_is_flax_s():
    images = np.random.default_rng(0).standard_normal((2, 8, 8, 3), np.float32)
    ours, peer = Conv(5, (3, 3), jnp.dtype(jnp.float32)), nn.Conv(5, (3, 3))
    variables = ours.init(jax.random.key(0), images)
    jax.tree.map(np.testing.assert_array_equal, variables, peer.init(jax.random.key(0), images))
    np.testing.assert_allclose(ours.apply(variables, images), peer.apply(variables, images), rtol=1e-6, atol=1e-6)
