"""The norms with sums of their own give what flax's give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from bloodcell_jax.models.norms import GroupNorm


def maps(shape):
    """Return maps whose groups have means and deviations of their own, and one map of zeros."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal(shape, np.float32) * np.linspace(0.1, 3, shape[-1]) + np.linspace(-2, 2, shape[-1])
    values[0] = 0
    return values.astype(np.float32)


@pytest.mark.parametrize(("channels", "groups"), [(32, 8), (8, 8), (6, 1)])
def test_group_norm_is_flax_s_and_so_are_its_gradients(channels, groups):
    x = maps((3, 5, 7, channels))
    ours, peer = GroupNorm(groups, jnp.dtype(jnp.float32)), nn.GroupNorm(groups)
    variables = ours.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, variables, peer.init(jax.random.key(0), x))
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda leaf: leaf + rng.standard_normal(leaf.shape, np.float32), variables)
    cotangent = rng.standard_normal(x.shape, np.float32)
    (y, gradients), (expected, peer_gradients) = (
        (norm.apply(variables, x), jax.vjp(norm.apply, variables, x)[1](cotangent)) for norm in (ours, peer)
    )
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(peer_gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


def test_group_norm_of_bfloat16_has_float32_statistics():
    """The squares of 4096 pixels near 8 sum up to 262,144; in bfloat16 the sum of ones ends at 256."""
    x = jnp.asarray(maps((2, 64, 64, 16)) + 8, jnp.bfloat16)
    half, whole = GroupNorm(4, jnp.dtype(jnp.bfloat16)), GroupNorm(4, jnp.dtype(jnp.float32))
    variables = whole.init(jax.random.key(0), x)
    assert half.apply(variables, x).dtype == jnp.bfloat16
    np.testing.assert_array_equal(half.apply(variables, x), whole.apply(variables, x).astype(jnp.bfloat16))
