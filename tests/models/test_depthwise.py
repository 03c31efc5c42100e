"""The depthwise convolution equals XLA's own grouped convolution, forward and backward, on every platform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax.models.depthwise import (
    accumulated_gradient,
    dense_conv,
    dense_gradient,
    depthwise_conv,
    grouped_conv,
    grouped_gradient,
    shifted_sum,
)


def draw(shape, kernel_size, dtype=np.float32):
    rng = np.random.default_rng(0)
    images = rng.standard_normal(shape)
    kernel = rng.standard_normal((*kernel_size, 1, shape[-1]))
    cotangent = rng.standard_normal(shape)
    return tuple(jnp.asarray(x, dtype) for x in (images, kernel, cotangent))


# 3x3 is the last map of a 96 px image: smaller than the kernel.
SHAPES = [(2, 12, 12, 8), (3, 3, 3, 5), (1, 9, 14, 3), (2, 1, 1, 4), (3, 6, 6, 2)]


@jax.jit
def outputs_and_gradients(images, kernel, cotangent):
    """Return (outputs, gradients) of our convolution and of XLA's."""

    def of(convolution):
        outputs, vjp = jax.vjp(convolution, images, kernel)
        return outputs, vjp(cotangent)

    return of(depthwise_conv), of(grouped_conv)


@pytest.mark.parametrize(
    ("shape", "kernel_size"), [*((shape, (7, 7)) for shape in SHAPES), (SHAPES[0], (3, 3)), (SHAPES[2], (5, 7))]
)
def test_outputs_and_both_gradients_equal_a_grouped_convolution(shape, kernel_size):
    (ours, our_gradients), (theirs, their_gradients) = outputs_and_gradients(*draw(shape, kernel_size))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)
    for our_gradient, their_gradient in zip(our_gradients, their_gradients, strict=True):
        assert our_gradient.shape == their_gradient.shape
        np.testing.assert_allclose(our_gradient, their_gradient, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("shape", [(2, 12, 12, 8), (3, 3, 3, 5), (1, 5, 9, 3)])
def test_every_form_computes_the_same(shape):
    """Which of them runs depends on the size of the map; none is right for some sizes only."""

    @jax.jit
    def all_forms(images, kernel, cotangent):
        outputs = [form(images, kernel) for form in (grouped_conv, dense_conv, shifted_sum)]
        forms = (grouped_gradient, accumulated_gradient, dense_gradient)
        return outputs, [form(images, cotangent, kernel) for form in forms]

    outputs, gradients = all_forms(*draw(shape, (7, 7)))
    for found in outputs[1:]:
        np.testing.assert_allclose(found, outputs[0], rtol=1e-5, atol=2e-5)
    for found in gradients[1:]:
        np.testing.assert_allclose(found, gradients[0], rtol=1e-5, atol=5e-5)


def test_bfloat16_is_summed_in_float32():
    images, kernel, cotangent = draw((2, 12, 12, 8), (7, 7), jnp.bfloat16)
    wide = (images.astype(jnp.float32), kernel.astype(jnp.float32))
    ours, our_vjp = jax.vjp(depthwise_conv, images, kernel)
    exact, exact_vjp = jax.vjp(grouped_conv, *wide)
    assert ours.dtype == jnp.bfloat16
    # Half a unit in the last of bfloat16's 8 bits: rounded once, at the end.
    np.testing.assert_allclose(ours.astype(np.float32), exact, rtol=2**-8, atol=1e-3)
    for our_gradient, exact_gradient in zip(our_vjp(cotangent), exact_vjp(cotangent.astype(jnp.float32)), strict=True):
        assert our_gradient.dtype == jnp.bfloat16
        np.testing.assert_allclose(our_gradient.astype(np.float32), exact_gradient, rtol=2**-8, atol=1e-3)


def test_an_accelerator_gets_its_own_convolution():
    images, kernel, _ = draw((2, 12, 12, 8), (7, 7))
    for platform, convolutions in (("cpu", 0), ("cuda", 1), ("tpu", 1)):
        text = jax.jit(depthwise_conv).trace(images, kernel).lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution") == convolutions, platform


def test_under_vmap_and_a_transform_inside_jit():
    images, kernel, _ = draw((4, 6, 6, 3), (7, 7))
    stacked = images.reshape(2, 2, 6, 6, 3)
    mapped = jax.jit(jax.vmap(depthwise_conv, (0, None)))(stacked, kernel)
    np.testing.assert_allclose(mapped.reshape(images.shape), depthwise_conv(images, kernel), atol=1e-5)
