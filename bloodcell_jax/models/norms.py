"""ConvNeXt's norms. Their statistics are float32."""

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
