"""ConvNeXt V1 (Liu et al. 2022, arXiv:2201.03545) and V2 (Woo et al. 2023, arXiv:2301.00808) in Linen.

Computes in `dtype`; the statistics of every norm, layer scale and the logits are float32. Drop path is
drawn from one key per example folded with the block's number, so it depends neither on the other examples of a batch
nor on how the batch is cut over devices.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jax.typing import ArrayLike

from bloodcell_jax.models.activations import ACTIVATIONS
from bloodcell_jax.models.dense import Dense, PatchConv
from bloodcell_jax.models.depthwise import depthwise_conv
from bloodcell_jax.models.network import check_not_empty
from bloodcell_jax.models.norms import GlobalResponseNorm, LayerNorm
from bloodcell_jax.models.variants import Variant

# As published: conv and dense weights truncated normal with std 0.02, cut at two standard deviations.
_init_weights = nn.initializers.truncated_normal(0.02)


def _scaled(initializer: Callable, scale: float) -> Callable:
    return lambda key, shape, dtype: scale * initializer(key, shape, dtype)


class DepthwiseConv(nn.Module):
    """Depthwise convolution of stride 1 with bias."""

    kernel_size: int
    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        channels, size = x.shape[-1], self.kernel_size
        kernel = self.param("kernel", _init_weights, (size, size, 1, channels), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
        return depthwise_conv(x, kernel.astype(self.dtype)) + bias.astype(self.dtype)


class Block(nn.Module):
    """Depthwise convolution, norm, two dense layers, layer scale and drop path around a residual."""

    variant: Variant
    kernel_size: int
    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, keys=None, number=0, keep_rate=1.0):
        """Return the block's output, [n, h, w, c] like `x`; without `keys` nothing is dropped.

        Args:
          keys, number, keep_rate: those of `drop_path`.
        """
        variant, channels, dtypes = self.variant, x.shape[-1], (self.dtype, self.param_dtype)
        dense = partial(Dense, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=_init_weights)
        y = checkpoint_name(DepthwiseConv(self.kernel_size, *dtypes, name="depthwise")(x), "depthwise")
        y = LayerNorm(variant.norm_eps, *dtypes, name="norm")(y)
        y = checkpoint_name(dense(4 * channels, name="expand")(y), "expand")
        y = ACTIVATIONS[variant.activation](y)
        if variant.grn:
            y = GlobalResponseNorm(*dtypes, name="grn")(y)
        y = checkpoint_name(dense(channels, name="project")(y), "project").astype(jnp.float32)
        if variant.layer_scale is not None:
            initial = nn.initializers.constant(variant.layer_scale)
            y = y * self.param("layer_scale", initial, (channels,), self.param_dtype)
        if keys is not None:
            y = drop_path(y, keys, number, keep_rate)
        return (x + y).astype(self.dtype)


def drop_path(branch: jax.Array, keys: jax.Array, number: ArrayLike, keep_rate: ArrayLike) -> jax.Array:
    """Keep the branch [n, h, w, c] of each example with probability `keep_rate`, scaled to the same mean; drop others.

    Stochastic depth (Huang et al. 2016, arXiv:1603.09382), drawn from `keys` [n] folded with the block's `number`, its
    place in the network.
    """
    keep = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, number), keep_rate))(keys)
    return jnp.where(keep[:, None, None, None], branch / keep_rate, 0)


class Stage(nn.Module):
    """Downsampling, in all stages but the first, and blocks.

    Attributes:
      first_block: number of its first block.
      drop_paths: one per block.
    """

    variant: Variant
    index: int
    first_block: int
    drop_paths: tuple[float, ...]
    remat: bool
    scan_blocks: bool
    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, keys):
        channels, dtypes = self.variant.dims[self.index], (self.dtype, self.param_dtype)
        if self.index > 0:
            x = LayerNorm(self.variant.norm_eps, *dtypes, name="downsample_norm")(x)
            x = PatchConv(channels, 2, *dtypes, _init_weights, name="downsample_conv")(x)
        block = partial(Block, self.variant, self.variant.kernel_sizes[self.index], *dtypes)
        if self.scan_blocks and len(self.drop_paths) > 1 and not self.is_initializing():
            return self._scan(block(parent=None), x, keys)
        if self.remat:
            block = partial(nn.remat(Block), *block.args)
        for i, rate in enumerate(self.drop_paths):
            x = block(name=f"block_{i}")(x, keys if rate > 0 else None, self.first_block + i, 1 - rate)
        return x

    def _scan(self, block: Block, x: Any, keys: jax.Array | None) -> Any:
        """Apply the blocks in a loop, whose program holds one of them.

        A loop keeps for the backward pass whatever it is not told to compute again, float32 copies of every norm among
        it. So it is told which maps to keep.
        """
        depth, params = len(self.drop_paths), self.variables["params"]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[f"block_{i}"] for i in range(depth)))
        numbers = self.first_block + jnp.arange(depth)
        keep_rates = jnp.asarray([1 - rate for rate in self.drop_paths], jnp.float32)
        kept = () if self.remat else ("depthwise", "expand", "project")

        def apply_block(x, of_block):
            own, number, keep_rate = of_block
            return block.apply({"params": own}, x, keys, number, keep_rate), None

        apply_block = jax.checkpoint(
            apply_block, policy=jax.checkpoint_policies.save_only_these_names(*kept), prevent_cse=False
        )
        keys = keys if max(self.drop_paths) > 0 else None
        return jax.lax.scan(apply_block, x, (stacked, numbers, keep_rates))[0]


class ConvNeXt(nn.Module):
    """ConvNeXt classifier.

    Attributes:
      drop_path: rate of the last block; it rises linearly from 0 at the first.
      head_init_scale: factor on the head's initial weights.
      stem_stride: 4, or 2 (the 4x4 kernel with padding 1) for small images.
      remat: recompute each block in the backward pass.
      scan_blocks: run the blocks of a stage in a loop.
      dtype: precision of the computation.
      param_dtype: precision of the parameters.
    """

    variant: Variant
    num_classes: int
    drop_path: float = 0.0
    head_init_scale: float = 1.0
    stem_stride: int = 4
    remat: bool = False
    scan_blocks: bool = False
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.head_norm = LayerNorm(self.variant.norm_eps, self.dtype, self.param_dtype)
        self.head = nn.Dense(
            self.num_classes,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=_scaled(_init_weights, self.head_init_scale),
        )

    def __call__(self, images, *, train: bool = False, keys: jax.Array | None = None):
        """Return (logits, features).

        Args:
          images: [n, h, w, 3], normalized, h and w at least 32 (16 with stem_stride 2).
          train: turns drop path on.
          keys: [n], one per example; needed if train and drop_path > 0.

        Returns:
          Logits float32 [n, num_classes], and features: `stem`, `stage_0` to `stage_3` ([n, h, w, c]) and `pooled`
          ([n, c], what the head takes).

        Raises:
          UsageError: the images are too small.
          ValueError: drop path is on and there are no keys.
        """
        x, features = self.extract(images, train=train, keys=keys)
        logits, features["pooled"] = self.classify(x, train=train, keys=keys)
        return logits, features

    @nn.compact
    def extract(self, images, *, train: bool = False, keys: jax.Array | None = None):
        """Return what `classify` takes, float32 [n, c], and the features before it; arguments and errors as above.

        It is the mean over the map; of variants that normalize before that mean, of the normalized map.
        """
        if train and self.drop_path > 0 and keys is None:
            raise ValueError("drop path needs keys, one per example")
        keys = keys if train else None
        variant = self.variant
        dtypes = (self.dtype, self.param_dtype)
        features = {}
        x = LayerNorm(variant.norm_eps, *dtypes, name="stem_norm")(self._stem(images.astype(self.dtype)))
        features["stem"] = x
        rates = self._drop_path_rates()
        for i, depth in enumerate(variant.depths):
            first = sum(variant.depths[:i])
            options = (rates[first : first + depth], self.remat, self.scan_blocks)
            stage = Stage(variant, i, first, *options, *dtypes, name=f"stage_{i}")
            x = features[f"stage_{i}"] = stage(x, keys)
        check_not_empty(x, images, 8 * self.stem_stride)
        return self.pool(x), features

    def pool(self, x):
        """Return the mean over the last map [n, h, w, c], float32 [n, c]; see `extract`."""
        x = self.head_norm(x) if self.variant.norm_before_pool else x
        return x.astype(jnp.float32).mean((1, 2))

    def classify(self, x, *, train: bool = False, keys: jax.Array | None = None):
        """Return logits float32 [n, num_classes] of what `extract` returned, and what the head took, [n, c].

        Nothing in it is random: `train` and `keys` are there for networks with dropout.
        """
        pooled = x if self.variant.norm_before_pool else self.head_norm(x)
        return self.head(pooled).astype(jnp.float32), pooled

    @property
    def feature_width(self) -> int:
        """Channels of what `extract` returns."""
        return self.variant.dims[-1]

    @property
    def inner_stem_width(self) -> int:
        """Channels between the two convolutions of an overlapping stem."""
        width = self.variant.dims[0]
        return _multiple_of_8(width // 2) if self.variant.stem == "overlap_tiered" else width

    def _stem(self, images):
        width, stride, dtypes = self.variant.dims[0], self.stem_stride, (self.dtype, self.param_dtype)
        if self.variant.stem == "patch" and stride == 4:
            return PatchConv(width, 4, *dtypes, _init_weights, name="stem_conv")(images)
        if self.variant.stem == "patch":
            return _conv(width, 4, stride, 1, *dtypes, "stem_conv")(images)
        x = _conv(self.inner_stem_width, 3, 2, 1, *dtypes, "stem_conv_0")(images)
        return _conv(width, 3, stride // 2, 1, *dtypes, "stem_conv_1")(x)

    def _drop_path_rates(self) -> tuple[float, ...]:
        last = sum(self.variant.depths) - 1
        return tuple(self.drop_path * block / last for block in range(last + 1))


def _conv(
    features: int, size: int, stride: int, padding: int, dtype: jnp.dtype, param_dtype: jnp.dtype, name: str
) -> nn.Conv:
    # Explicit padding floors odd sizes as the published models do; SAME would not.
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=((padding, padding), (padding, padding)),
        dtype=dtype,
        param_dtype=param_dtype,
        kernel_init=_init_weights,
        name=name,
    )


def _multiple_of_8(value: int) -> int:
    """Round as timm does: to a multiple of 8, but not below 0.9 of the value."""
    rounded = max(8, (value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded
