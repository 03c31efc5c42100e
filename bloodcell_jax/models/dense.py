"""Matrix products with a gradient written out: dense layers, and convolutions whose windows do not overlap."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

# Rows of a product, as a multiple of the kernel's longer side, from which on two halves were faster.
_MANY_ROWS = 4


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply rows [n, c] by a kernel [c, k]; products of bfloat16 are summed in float32 and rounded once.

    As XLA differentiates a product, the kernel's gradient comes transposed, for which the CPU copies all its rows; and
    it uses the matrix units of a CPU (AMX) for bfloat16 only if the result is float32 (docs/performance_history.md).
    """
    return _product(x, kernel, 1, 0).astype(x.dtype)


def _forward(x, kernel):
    return matmul(x, kernel), (x, kernel)


def _backward(residuals, cotangent):
    x, kernel = residuals
    x_gradient = _product(cotangent, kernel, 1, 1)
    kernel_gradient = lax.platform_dependent(x, cotangent, cpu=_cpu_kernel_gradient, default=_kernel_gradient)
    return x_gradient.astype(x.dtype), kernel_gradient.astype(kernel.dtype)


matmul.defvjp(_forward, _backward)


def _kernel_gradient(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    return _product(x, cotangent, 0, 0)


def _cpu_kernel_gradient(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    """Return the kernel's gradient [c, k], for many rows by way of two halves of them and [k, c] if k is the smaller.

    XLA:CPU reaches 135 GFLOP/s for 18,432 rows with c = 384 and k = 96, this 298 (docs/performance_history.md).
    """
    rows, (c, k) = len(x), (x.shape[1], cotangent.shape[1])
    if rows % 2 or rows < _MANY_ROWS * max(c, k):
        return _kernel_gradient(x, cotangent)
    x, cotangent = x.reshape(2, -1, c), cotangent.reshape(2, -1, k)
    left, right = (x, cotangent) if c <= k else (cotangent, x)
    halves = lax.dot_general(left, right, (((1,), (1,)), ((0,), (0,))), preferred_element_type=jnp.float32)
    gradient = halves.sum(0)
    return gradient if c <= k else gradient.T


def _product(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
    return lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.float32)


class Dense(nn.Module):
    """Dense layer over the last axis."""

    features: int
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1])
        y = matmul(rows, kernel.astype(self.dtype)) + bias.astype(self.dtype)
        return y.reshape(*x.shape[:-1], self.features)


class PatchConv(nn.Module):
    """Convolution whose stride is its kernel's size: every patch is multiplied by one matrix.

    What is left over at the right and the bottom is cut off, as a convolution without padding does.
    """

    features: int
    size: int
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x):
        n, height, width, channels = x.shape
        size, h, w = self.size, height // self.size, width // self.size
        kernel = self.param("kernel", self.kernel_init, (size, size, channels, self.features), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        patches = x[:, : h * size, : w * size].astype(self.dtype).reshape(n, h, size, w, size, channels)
        rows = patches.transpose(0, 1, 3, 2, 4, 5).reshape(n * h * w, size * size * channels)
        y = matmul(rows, kernel.astype(self.dtype).reshape(-1, self.features)) + bias.astype(self.dtype)
        return y.reshape(n, h, w, self.features)
