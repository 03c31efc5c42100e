"""Losses against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax.train.losses import classification_losses, jensen_shannon

rng = np.random.default_rng(0)
LOGITS = rng.normal(size=(5, 3, 4)) * 3
TARGETS = rng.dirichlet(np.ones(4), 5)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def reference_divergence(logits):
    views = softmax(logits)
    mean = np.clip(views.mean(1, keepdims=True), 1e-7, 1)
    return (views * np.log(views / mean)).sum(-1).mean(-1)


def test_the_consistency_is_the_jensen_shannon_divergence_of_the_views():
    divergence = jax.jit(jensen_shannon)
    np.testing.assert_allclose(divergence(jnp.asarray(LOGITS, jnp.float32)), reference_divergence(LOGITS), rtol=1e-4)
    same = jnp.asarray(LOGITS[:, :1].repeat(3, 1), jnp.float32)
    np.testing.assert_allclose(divergence(same), 0, atol=1e-6)
    apart = jnp.asarray(np.eye(3)[None] * 100, jnp.float32)
    np.testing.assert_allclose(divergence(apart), np.log(3), rtol=1e-4)
    assert np.isfinite(jax.jit(jax.grad(lambda logits: jensen_shannon(logits).sum()))(apart)).all()


@pytest.mark.parametrize("jsd", [None, 12.0])
def test_the_cross_entropy_is_of_the_clean_view_alone(jsd):
    logits = LOGITS[:, 0] if jsd is None else LOGITS.reshape(15, 4)
    compiled = jax.jit(classification_losses, static_argnums=2)
    losses, shown = compiled(jnp.asarray(logits, jnp.float32), jnp.asarray(TARGETS, jnp.float32), jsd)
    expected = -(TARGETS * np.log(softmax(LOGITS[:, 0]))).sum(-1)
    expected = expected + (jsd or 0) * reference_divergence(LOGITS)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    np.testing.assert_allclose(shown, LOGITS[:, 0], rtol=1e-6)
