"""Convolution with stride 1 whose kernel gradient a CPU sums over parts of the batch."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

# The most parts of a batch, and the fewest images of a part. XLA:CPU lays out all windows of its images in memory for
# the kernel's gradient: for 128 images of 48x48x32 it takes 2.0 times as long as for 16 parts of 8, on one core
# (docs/performance_history.md).
_MOST_PARTS, _FEWEST_IMAGES = 16, 4


@jax.custom_vjp
def conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve [n, h, w, c] with a kernel [kh, kw, c, k], stride 1, padded so that the size stays."""
    return _conv(images, kernel)


def _conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _forward(images, kernel):
    return conv(images, kernel), (images, kernel)


def _backward(residuals, cotangent):
    images, kernel = residuals
    (images_gradient,) = jax.linear_transpose(lambda x: _conv(x, kernel), images)(cotangent)
    gradient = functools.partial(lax.platform_dependent, cpu=_cpu_kernel_gradient, default=_kernel_gradient)
    return images_gradient, gradient(images, kernel, cotangent)


conv.defvjp(_forward, _backward)


def _kernel_gradient(images: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> jax.Array:
    (gradient,) = jax.linear_transpose(lambda k: _conv(images, k), kernel)(cotangent)
    return gradient


def _cpu_kernel_gradient(images: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> jax.Array:
    n = len(images)
    parts = max((p for p in range(1, _MOST_PARTS + 1) if n % p == 0 and n >= p * _FEWEST_IMAGES), default=1)
    gradients = [
        _kernel_gradient(part, kernel, part_cotangent).astype(jnp.float32)
        for part, part_cotangent in zip(jnp.split(images, parts), jnp.split(cotangent, parts), strict=True)
    ]
    return sum(gradients[1:], gradients[0]).astype(kernel.dtype)


class Conv(nn.Module):
    """Convolution with bias, stride 1; the parameters are those of `flax.linen.Conv`."""

    features: int
    kernel_size: tuple[int, int]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv(x.astype(self.dtype), kernel.astype(self.dtype)) + bias.astype(self.dtype)
