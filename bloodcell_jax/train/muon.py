"""Muon's orthogonal updates, with matrix products as small as the shorter side of a matrix allows."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

# Of the quintic Newton-Schulz iteration (K. Jordan 2024): singular values end between 0.7 and 1.2.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
# Rounding grows in the powers of the Gram matrix: by 3.4445^2 an iteration for the smallest singular values. float32
# has room for it. TF32 and bfloat16, the defaults of accelerators for such products, do not.
_PRECISION = jax.lax.Precision.HIGHEST


def scale_by_muon(beta: float, mu_dtype: Any) -> optax.GradientTransformation:
    """Return Muon over matrices: Nesterov momentum, made orthogonal.

    A kernel of a convolution [kh, kw, c, k] counts as the matrix [kh kw c, k] that its windows are multiplied by.

    It has the state and the results of `optax.contrib.scale_by_muon`, to rounding. On a CPU it takes a third of the
    time (docs/decisions.md).

    Args:
      beta: decay of the momentum.
      mu_dtype: of the momentum.
    """
    peer = optax.contrib.scale_by_muon(beta=beta, mu_dtype=mu_dtype)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, optax.contrib.MuonState]:
        del params
        count = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(updates, state.mu, beta, 1)
        ahead = jax.tree.map(
            lambda m, g: orthogonalize(as_matrix(beta * m + (1 - beta) * g)).reshape(g.shape),
            optax.tree.bias_correction(mu, beta, optax.safe_increment(count)),
            optax.tree.bias_correction(updates, beta, count),
        )
        return ahead, optax.contrib.MuonState(count, optax.tree.cast(mu, mu_dtype), state.ns_coeffs)

    return optax.GradientTransformation(peer.init, update)


def as_matrix(kernel: jax.Array) -> jax.Array:
    """Return a kernel [..., k] as the matrix [n, k] that multiplies the layer's inputs."""
    return kernel.reshape(-1, kernel.shape[-1])


def orthogonalize(x: jax.Array) -> jax.Array:
    """Return a matrix with the singular vectors of another, and singular values near 1.

    An iteration of Newton-Schulz is X' = Q X with Q = a I + b G + c G^2 and G = X X^T, on the side of X that is
    shorter. Q is a polynomial in the first G, and so are all later G' = Q G Q. So the iterations multiply matrices of
    the shorter side alone, and X itself is multiplied once, at the end.

    Args:
      x: [m, n], float32.
    """
    if x.shape[0] > x.shape[1]:
        return orthogonalize(x.T).T
    x = x / (jnp.linalg.norm(x) + 1e-8)
    gram = _multiply(x, x.T)
    product = factor = _factor_of(gram)
    for _ in range(_ITERATIONS - 1):
        gram = _multiply(factor, _multiply(gram, factor))
        factor = _factor_of(gram)
        product = _multiply(factor, product)
    return _multiply(product, x)


def _factor_of(gram: jax.Array) -> jax.Array:
    a, b, c = _COEFFICIENTS
    return a * jnp.eye(len(gram), dtype=gram.dtype) + b * gram + c * _multiply(gram, gram)


def _multiply(left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.matmul(left, right, precision=_PRECISION)
