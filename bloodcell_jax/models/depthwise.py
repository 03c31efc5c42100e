"""Depthwise convolution with a gradient of its own, an implementation per platform and size.

XLA:CPU runs a grouped convolution 20 to 70 times slower than what follows (docs/performance.md has the numbers).
There a map of up to 3x3 pixels is multiplied by one dense matrix per channel, which holds the taps; on larger maps
forward pass and input gradient are a sum of shifted products, which fuses into one loop. The kernel's gradient is
accumulated pixel by pixel, its [kh, kw, c] accumulator staying in the cache, or on maps of up to 7x7 found through the
dense matrix. A TPU of one core multiplies by the dense matrix on maps of up to 12x12 if there are images enough to pay
for it. Elsewhere XLA's own convolution is used. The choice is made when a step is lowered for a platform.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim

# The largest map, in pixels, on which the dense matrix was the faster form on a CPU (benchmarks/depthwise.py).
_DENSE_FORWARD_PIXELS, _DENSE_GRADIENT_PIXELS = 3 * 3, 7 * 7

# The fewest images for which the dense matrix has the lower estimate of XLA:TPU, by the largest map in pixels; the
# kernel's gradient has it nowhere (docs/plan.md). On v4 and v5p, whose two cores share each product, it never has.
_TPUS_OF_ONE_CORE = ("TPU v5 lite", "TPU v6 lite")
_TPU_DENSE_IMAGES = {3 * 3: 64, 12 * 12: 16}


@jax.custom_vjp
def depthwise_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve each channel with a filter of its own, stride 1, padded so that the size stays.

    Args:
      images: [n, h, w, c].
      kernel: [kh, kw, 1, c], kh and kw odd, as `lax.conv_general_dilated` takes it.

    Returns:
      [n, h, w, c] in the dtype of `images`.
    """
    return lax.platform_dependent(images, kernel, cpu=_cpu_conv, tpu=_tpu_conv, default=grouped_conv)


def _forward(images, kernel):
    return depthwise_conv(images, kernel), (images, kernel)


def _backward(residuals, cotangent):
    images, kernel = residuals
    images_gradient = depthwise_conv(cotangent, kernel[::-1, ::-1])
    kernel_gradient = functools.partial(lax.platform_dependent, cpu=_cpu_kernel_gradient, default=grouped_gradient)
    return images_gradient, kernel_gradient(images, cotangent, kernel).astype(kernel.dtype)


depthwise_conv.defvjp(_forward, _backward)


def _cpu_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    height, width = images.shape[1:3]
    return (dense_conv if height * width <= _DENSE_FORWARD_PIXELS else shifted_sum)(images, kernel)


def _tpu_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    n, height, width, _ = images.shape
    fewest = next((images for pixels, images in _TPU_DENSE_IMAGES.items() if height * width <= pixels), None)
    # An exported program is for any batch and any TPU.
    many = fewest is not None and not is_symbolic_dim(n) and n >= fewest
    dense = many and _device_kind() in _TPUS_OF_ONE_CORE
    return (dense_conv if dense else grouped_conv)(images, kernel)


def _device_kind() -> str:
    """Return JAX's name of the devices that are compiled for."""
    # It is no promise of jax; 0.10 and 0.11 have it.
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    return jax.devices()[0].device_kind if device is None else device.device_kind


def _cpu_kernel_gradient(images: jax.Array, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    height, width = images.shape[1:3]
    dense = height * width <= _DENSE_GRADIENT_PIXELS
    return (dense_gradient if dense else accumulated_gradient)(images, cotangent, kernel)


def grouped_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's own: one group per channel."""
    kh, kw = kernel.shape[:2]
    return lax.conv_general_dilated(
        images,
        kernel.astype(images.dtype),
        window_strides=(1, 1),
        padding=((kh // 2, kh // 2), (kw // 2, kw // 2)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=images.shape[-1],
    )


def grouped_gradient(images: jax.Array, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return the kernel's gradient float32 [kh, kw, 1, c] of `grouped_conv`, as XLA differentiates it."""
    gradient = jax.vjp(lambda kernel: grouped_conv(images, kernel), kernel)[1](cotangent)[0]
    return gradient.astype(jnp.float32)


def shifted_sum(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Sum the padded image, shifted and scaled, over the taps: one loop on a CPU."""
    n = images.shape[0]
    if not is_symbolic_dim(n) and n < 2:
        return _shifted_sum(images, kernel)
    # XLA hands sums like those of a norm, and what they are made from, to a library, tap by tap: it took 30 ms for the
    # 3 ms of a 24x24x96 map (jax 0.10.2). It stops at a concatenation; at an optimization barrier it does not.
    half = n // 2
    return jnp.concatenate([_shifted_sum(images[:half], kernel), _shifted_sum(images[half:], kernel)])


def _shifted_sum(images: jax.Array, kernel: jax.Array) -> jax.Array:
    height, width = images.shape[1:3]
    padded = _pad(images, kernel)
    # Summed in float32, as a convolution is; the compiler keeps the sum in registers.
    products = (
        padded[:, i : i + height, j : j + width].astype(jnp.float32) * kernel[i, j, 0].astype(jnp.float32)
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    )
    total: Any = sum(products)
    return total.astype(images.dtype)


def accumulated_gradient(images: jax.Array, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return the kernel's gradient float32 [kh, kw, 1, c], one output pixel after the other."""
    n, height, width, channels = images.shape
    kh, kw = kernel.shape[:2]
    padded = _pad(images, kernel)

    def add_pixel(number, total):
        image, y, x = number // (height * width), number // width % height, number % width
        patch = lax.dynamic_slice(padded, (image, y, x, 0), (1, kh, kw, channels))[0]
        pixel = lax.dynamic_slice(cotangent, (image, y, x, 0), (1, 1, 1, channels))[0]
        return total + patch.astype(jnp.float32) * pixel.astype(jnp.float32)

    return lax.fori_loop(0, n * height * width, add_pixel, jnp.zeros((kh, kw, channels)))[:, :, None]


def dense_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply each channel's pixels, as one row, by the matrix that its filter amounts to."""
    n, height, width, channels = images.shape
    matrix = _dense_matrix(kernel.astype(images.dtype), height, width)
    rows = images.reshape(n, height * width, channels).transpose(2, 0, 1)
    product = lax.dot_general(rows, matrix, (((2,), (1,)), ((0,), (0,))), preferred_element_type=jnp.float32)
    return product.astype(images.dtype).transpose(1, 2, 0).reshape(images.shape)


def dense_gradient(images: jax.Array, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return the kernel's gradient float32 [kh, kw, 1, c] by way of the gradient of each channel's matrix."""
    n, height, width, channels = images.shape
    rows, cotangents = (x.reshape(n, height * width, channels).transpose(2, 1, 0) for x in (images, cotangent))
    gradient = lax.dot_general(rows, cotangents, (((2,), (2,)), ((0,), (0,))), preferred_element_type=jnp.float32)
    transposed = jax.linear_transpose(
        lambda kernel: _dense_matrix(kernel, height, width), jax.ShapeDtypeStruct(kernel.shape, jnp.float32)
    )
    return transposed(gradient)[0]


def _dense_matrix(kernel: jax.Array, height: int, width: int) -> jax.Array:
    """Return [c, h * w, h * w]: what each input pixel (rows) adds to each output pixel (columns)."""
    kh, kw, _, channels = kernel.shape
    # A margin of zeros for pairs of pixels that are farther apart than the filter reaches.
    taps = jnp.pad(kernel[:, :, 0], ((0, 1), (0, 1), (0, 0)))
    y, x = (_tap_of_pairs(size, taps) for size, taps in ((height, kh), (width, kw)))
    matrix = taps[y[:, None, :, None], x[None, :, None, :]]
    return matrix.reshape(height * width, height * width, channels).transpose(2, 0, 1)


def _tap_of_pairs(size: int, taps: int) -> np.ndarray:
    """Return, for input place i (rows) and output place o, the tap that joins them along one axis; `taps` if none."""
    place = np.arange(size)
    tap = place[:, None] - place[None, :] + taps // 2
    return np.where((tap >= 0) & (tap < taps), tap, taps)


def _pad(images: jax.Array, kernel: jax.Array) -> jax.Array:
    kh, kw = kernel.shape[:2]
    return jnp.pad(images, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
