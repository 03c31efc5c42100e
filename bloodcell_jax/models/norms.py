"""The norms of the networks. Their statistics are float32."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class LayerNorm(nn.Module):
    """LayerNorm over the channels; statistics in float32, by the mean of squared deviations."""

    epsilon: float
    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), self.param_dtype)
        x = x.astype(jnp.float32)
        centerd = x - x.mean(-1, keepdims=True)
        variance = jnp.square(centerd).mean(-1, keepdims=True)
        return (centerd * jax.lax.rsqrt(variance + self.epsilon) * scale + bias).astype(self.dtype)


class GlobalResponseNorm(nn.Module):
    """Global response normalization (ConvNeXt V2, section 3.3)."""

    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), self.param_dtype)
        wide = x.astype(jnp.float32)
        energy = jnp.square(wide).sum((1, 2), keepdims=True)
        # A channel that is zero everywhere has norm 0. The root has no gradient there; it is taken as 0.
        response = jnp.where(energy > 0, jnp.sqrt(jnp.where(energy > 0, energy, 1)), 0)
        normalized = response / (response.mean(-1, keepdims=True) + 1e-6)
        return (wide + scale * (wide * normalized) + bias).astype(self.dtype)


class GroupNorm(nn.Module):
    """GroupNorm (Wu and He 2018, arXiv:1803.08494) of maps [n, h, w, c]; parameters and values are flax's.

    Sums go over the pixels first, for each channel, and over the channels of a group afterwards. XLA:CPU adds up the
    channels of a group together with the pixels as slowly as the group is narrow: for 128 maps of 48x48x32 in 8 groups,
    norm, GELU and their gradients take 127 ms by flax and 50 ms so, on one core (docs/performance_history.md).
    """

    num_groups: int
    dtype: jnp.dtype
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        x = x.astype(jnp.float32)
        mean = self._mean_of_groups(x)
        variance = jnp.maximum(self._mean_of_groups(jnp.square(x)) - jnp.square(mean), 0)
        slope = scale * jax.lax.rsqrt(variance + self.epsilon)
        offset = bias - mean * slope
        return (x * slope[:, None, None] + offset[:, None, None]).astype(self.dtype)

    def _mean_of_groups(self, x: jax.Array) -> jax.Array:
        """Return the mean over the pixels and the channels of a group, [n, c]: each channel has its group's."""
        n, _, _, channels = x.shape
        groups = x.mean((1, 2)).reshape(n, self.num_groups, -1).mean(-1)
        return jnp.repeat(groups, channels // self.num_groups, axis=1)
