"""The small convolutional network of the report, the baseline that transfer learning is measured against."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from bloodcell_jax.models.convolution import Conv
from bloodcell_jax.models.network import check_not_empty
from bloodcell_jax.models.norms import GroupNorm

WIDTHS = (32, 64, 128, 256)


class CustomCNN(nn.Module):
    """Four stages of two 3x3 convolutions with GroupNorm and GELU, each halving the map, then a dense head.

    Such networks usually have BatchNorm; GroupNorm (Wu and He 2018, arXiv:1803.08494) has no batch statistics. So the
    numbers are the same on any number of devices, and none go stale on images from another microscope.
    """

    num_classes: int
    head_init_scale: float = 1.0
    dropout: float = 0.3
    dtype: jnp.dtype = jnp.dtype(jnp.float32)

    def setup(self):
        head_init = nn.initializers.variance_scaling(self.head_init_scale**2, "fan_in", "truncated_normal")
        self.head = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=head_init)

    def __call__(self, images, *, train: bool = False, keys: jax.Array | None = None):
        """Return (logits float32 [n, num_classes], features); see `Network.__call__`."""
        pooled, features = self.extract(images, train=train, keys=keys)
        logits, features["pooled"] = self.classify(pooled, train=train, keys=keys)
        return logits, features

    @nn.compact
    def extract(self, images, *, train: bool = False, keys: jax.Array | None = None):
        """Return the mean over the last map, float32 [n, 256], and the features before it; nothing in it is random.

        Raises:
          UsageError: the images are too small.
        """
        features = {}
        conv = partial(Conv, kernel_size=(3, 3), dtype=self.dtype)
        x = features["stem"] = nn.gelu(conv(WIDTHS[0], name="stem_conv")(images.astype(self.dtype)))
        for i, width in enumerate(WIDTHS):
            for j in range(2):
                x = conv(width, name=f"stage_{i}_conv_{j}")(x)
                x = nn.gelu(GroupNorm(num_groups=8, dtype=self.dtype, name=f"stage_{i}_norm_{j}")(x))
            x = features[f"stage_{i}"] = _halve(x)
        check_not_empty(x, images, 2 ** len(WIDTHS))
        return self.pool(x), features

    def pool(self, x):
        """Return the mean over the last map [n, h, w, 256], float32 [n, 256]."""
        return x.astype(jnp.float32).mean((1, 2))

    def classify(self, x, *, train: bool = False, keys: jax.Array | None = None):
        """Return logits float32 [n, num_classes] of what `extract` returned, and that; `train` turns dropout on."""
        dropped = _dropout(x, keys, self.dropout) if train and self.dropout > 0 else x
        return self.head(dropped).astype(jnp.float32), x

    @property
    def feature_width(self) -> int:
        """Channels of what `extract` returns."""
        return WIDTHS[-1]


def _halve(x: jax.Array) -> jax.Array:
    """Return the maximum of each 2x2 window; a row or column that is left over is cut off.

    The gradient of a window's maximum takes a seventh of the step if XLA:CPU finds it by `reduce_window`
    (docs/performance_history.md). Pixels that are equal share it.
    """
    n, height, width, channels = x.shape
    h, w = height // 2, width // 2
    return x[:, : 2 * h, : 2 * w].reshape(n, h, 2, w, 2, channels).max((2, 4))


def _dropout(x: jax.Array, keys: jax.Array | None, rate: float) -> jax.Array:
    """Drop values of [n, c], drawn from one key per example."""
    if keys is None:
        raise ValueError("dropout needs keys, one per example")
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0)
