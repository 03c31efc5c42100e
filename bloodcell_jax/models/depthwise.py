"""Depthwise convolution with a gradient of its own, an implementation per platform.

XLA:CPU runs a grouped convolution 20 to 70 times slower than what follows (docs/decisions.md has the numbers), so
there the forward pass and the input gradient are a sum of shifted products, which fuses into one loop, and the
weight gradient is accumulated pixel by pixel, its [kh, kw, c] accumulator staying in the cache. Elsewhere XLA's own
convolution is used. The choice is made when a step is lowered for a platform.
"""

import jax
import jax.numpy as jnp
from jax import lax


@jax.custom_vjp
def depthwise_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve each channel with a filter of its own, stride 1, padded so that the size stays.

    Args:
      images: [n, h, w, c].
      kernel: [kh, kw, 1, c], kh and kw odd, as `lax.conv_general_dilated` takes it.

    Returns:
      [n, h, w, c] in the dtype of `images`.
    """
    return lax.platform_dependent(images, kernel, cpu=_shifted_sum, default=_grouped_conv)


def _forward(images, kernel):
    return depthwise_conv(images, kernel), (images, kernel)


def _backward(residuals, cotangent):
    images, kernel = residuals
    flipped = kernel[::-1, ::-1]
    images_gradient = lax.platform_dependent(cotangent, flipped, cpu=_shifted_sum, default=_grouped_conv)
    kernel_gradient = lax.platform_dependent(
        images, cotangent, kernel, cpu=_accumulated_kernel_gradient, default=_grouped_kernel_gradient
    )
    return images_gradient, kernel_gradient.astype(kernel.dtype)


depthwise_conv.defvjp(_forward, _backward)


def _pad(images: jax.Array, kernel: jax.Array) -> jax.Array:
    kh, kw = kernel.shape[:2]
    return jnp.pad(images, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))


def _shifted_sum(images: jax.Array, kernel: jax.Array) -> jax.Array:
    height, width = images.shape[1:3]
    padded = _pad(images, kernel)
    # Summed in float32, as a convolution is; the compiler keeps the sum in registers.
    products = (
        padded[:, i : i + height, j : j + width].astype(jnp.float32) * kernel[i, j, 0].astype(jnp.float32)
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    )
    return sum(products).astype(images.dtype)


def _grouped_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    kh, kw = kernel.shape[:2]
    return lax.conv_general_dilated(
        images,
        kernel.astype(images.dtype),
        window_strides=(1, 1),
        padding=((kh // 2, kh // 2), (kw // 2, kw // 2)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=images.shape[-1],
    )


def _accumulated_kernel_gradient(images: jax.Array, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    n, height, width, channels = images.shape
    kh, kw = kernel.shape[:2]
    padded = _pad(images, kernel)

    def add_row(row, total):
        image, y = row // height, row % height
        window = lax.dynamic_slice(padded, (image, y, 0, 0), (1, kh, width + kw - 1, channels))[0]
        cotangents = lax.dynamic_slice(cotangent, (image, y, 0, 0), (1, 1, width, channels))[0, 0]

        def add_pixel(x, total):
            patch = lax.dynamic_slice(window, (0, x, 0), (kh, kw, channels)).astype(jnp.float32)
            return total + patch * lax.dynamic_slice(cotangents, (x, 0), (1, channels)).astype(jnp.float32)

        return lax.fori_loop(0, width, add_pixel, total)

    return lax.fori_loop(0, n * height, add_row, jnp.zeros((kh, kw, channels)))[:, :, None]


def _grouped_kernel_gradient(images: jax.Array, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    gradient = jax.vjp(lambda kernel: _grouped_conv(images, kernel), kernel)[1](cotangent)[0]
    return gradient.astype(jnp.float32)
