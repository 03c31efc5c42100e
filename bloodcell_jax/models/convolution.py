"""Convolution with stride 1 whose kernel gradient a CPU sums over parts of the batch."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

# The most memory that all windows of a part take, and the most parts. For the kernel's gradient, XLA:CPU lays out all
# windows of its images in memory: for 128 images of 48x48x32, it takes 122 ms in 16 parts of 21 MB and 59 ms in 32 of
# 10.6 MB, on one core (docs/performance_history.md). Each part is a convolution more in the program.
_MOST_WINDOW_BYTES, _MOST_PARTS = 11 * 2**20, 64


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
    parts = _parts(len(images), cotangent[0, ..., 0].size * kernel[..., 0].size * images.dtype.itemsize)
    gradients = [
        _kernel_gradient(part, kernel, part_cotangent).astype(jnp.float32)
        for part, part_cotangent in zip(jnp.split(images, parts), jnp.split(cotangent, parts), strict=True)
    ]
    return sum(gradients[1:], gradients[0]).astype(kernel.dtype)


def _parts(n: int, window_bytes: int) -> int:
    """Return the fewest equal parts of n images whose windows fit, `window_bytes` an image, or the most allowed."""
    divisors = [parts for parts in range(1, min(n, _MOST_PARTS) + 1) if n % parts == 0]
    return next((parts for parts in divisors if n // parts * window_bytes <= _MOST_WINDOW_BYTES), divisors[-1])


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
