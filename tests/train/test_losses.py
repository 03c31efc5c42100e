"""Losses against NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax.config import TrainConfig
from bloodcell_jax.train.losses import classification_losses, create_loss, jensen_shannon, weighted_cross_entropy

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
    compiled = jax.jit(classification_losses, static_argnums=(2, 3))
    arguments = jnp.asarray(logits, jnp.float32), jnp.asarray(TARGETS, jnp.float32), jsd, weighted_cross_entropy
    losses, shown = compiled(*arguments)
    expected = -(TARGETS * np.log(softmax(LOGITS[:, 0]))).sum(-1)
    expected = expected + (jsd or 0) * reference_divergence(LOGITS)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    np.testing.assert_allclose(shown, LOGITS[:, 0], rtol=1e-6)


WEIGHTS = np.array([0.5, 1.0, 2.0, 3.0])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_focal_loss_is_its_formula_and_without_gamma_the_cross_entropy(gamma, weights):
    loss = jax.jit(create_loss(TrainConfig(loss="focal", focal_gamma=gamma)))
    p = softmax(LOGITS[:, 0])
    expected = -(TARGETS * (1 if weights is None else weights) * (1 - p) ** gamma * np.log(p)).sum(-1)
    logits, targets = jnp.asarray(LOGITS[:, 0], jnp.float32), jnp.asarray(TARGETS, jnp.float32)
    np.testing.assert_allclose(loss(logits, targets, weights), expected, rtol=1e-4)
    if gamma == 0:
        np.testing.assert_allclose(expected, weighted_cross_entropy(logits, targets, weights), rtol=1e-4)


def test_focal_loss_and_its_gradient_are_finite_where_the_model_is_sure():
    loss = create_loss(TrainConfig(loss="focal", focal_gamma=0.5))
    sure, targets = jnp.asarray([[200.0, 0.0], [0.0, 200.0]]), jnp.asarray([[1.0, 0.0], [1.0, 0.0]])
    value, gradient = jax.value_and_grad(lambda logits: loss(logits, targets, None).sum())(sure)
    assert value == pytest.approx(200)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_binary_cross_entropy_asks_each_class(weights):
    loss = create_loss(TrainConfig(loss="binary"))
    yes = 1 / (1 + np.exp(-LOGITS[:, 0]))
    each = -(TARGETS * np.log(yes) + (1 - TARGETS) * np.log(1 - yes)) * (1 if weights is None else weights)
    logits, targets = jnp.asarray(LOGITS[:, 0], jnp.float32), jnp.asarray(TARGETS, jnp.float32)
    np.testing.assert_allclose(loss(logits, targets, weights), each.mean(-1), rtol=1e-4)


def test_every_choice_of_the_configuration_is_there():
    choices = next(f.metadata["choices"] for f in dataclasses.fields(TrainConfig) if f.name == "loss")
    for name in choices:
        assert np.isfinite(create_loss(TrainConfig(loss=name))(jnp.zeros((2, 3)), jnp.eye(3)[:2], None)).all()
