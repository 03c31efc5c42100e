"""Activation functions by the names that variants use."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
    """GELU by the error function (Hendrycks and Gimpel 2016, arXiv:1606.08415).

    `jax.nn.gelu` goes by erfc, whose expansion XLA:CPU fuses badly: a block's dense layers with their gradients took
    312 ms that way and 95 ms this way (docs/decisions.md); the results differ by at most 1e-6.
    """
    return x * (0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5)))


@gelu.defjvp
def _gelu_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    # erf(-x) and not erf(x): equal terms would be computed once and kept from the forward pass to here, which costs a
    # fifth of the memory of a step and more time than a second erf.
    slope = 0.5 - 0.5 * jax.lax.erf(x * -math.sqrt(0.5)) + x * jnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return gelu(x), slope * tangent


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_tanh": partial(nn.gelu, approximate=True),
    "silu": nn.silu,
}
