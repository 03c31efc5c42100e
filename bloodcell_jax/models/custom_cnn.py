"""The small convolutional network of the report, the baseline that transfer learning is measured against."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

WIDTHS = (32, 64, 128, 256)


class CustomCNN(nn.Module):
    """Four stages of two 3x3 convolutions with GroupNorm and GELU, each halving the map, then a dense head.

    GroupNorm (Wu and He 2018, arXiv:1803.08494) stands where such networks use BatchNorm: no batch statistics means
    the same numbers on any number of devices, and none to go stale on pictures from another microscope.
    """

    num_classes: int
    head_init_scale: float = 1.0
    dropout: float = 0.3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images, *, train: bool = False, keys: jax.Array | None = None):
        """Return (logits float32 [n, num_classes], features); see `ConvNeXt.__call__`."""
        features = {}
        conv = partial(nn.Conv, kernel_size=(3, 3), dtype=self.dtype)
        x = features["stem"] = nn.gelu(conv(WIDTHS[0], name="stem_conv")(images.astype(self.dtype)))
        for i, width in enumerate(WIDTHS):
            for j in range(2):
                x = conv(width, name=f"stage_{i}_conv_{j}")(x)
                x = nn.gelu(nn.GroupNorm(num_groups=8, dtype=self.dtype, name=f"stage_{i}_norm_{j}")(x))
            x = features[f"stage_{i}"] = nn.max_pool(x, (2, 2), (2, 2))
        pooled = features["pooled"] = x.astype(jnp.float32).mean((1, 2))
        if train and self.dropout > 0:
            pooled = _dropout(pooled, keys, self.dropout)
        head_init = nn.initializers.variance_scaling(self.head_init_scale**2, "fan_in", "truncated_normal")
        head = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=head_init, name="head")
        return head(pooled).astype(jnp.float32), features


def _dropout(x: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
    """Dropout of [n, c] drawn from one key per example."""
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0)
