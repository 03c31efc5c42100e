"""When a plateau ends: counted as Keras counts it."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bloodcell_jax.config import OptimizerConfig
from bloodcell_jax.train.optimizers import create_optimizer
from bloodcell_jax.train.plateaus import evaluations_since_best, plateau_scale, rate_scale, with_rate_scale


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ([], []),
        ([0.5, 0.6, 0.6, 0.5, 0.7], [0, 0, 1, 2, 0]),
        ([math.nan, 0.1, None, math.inf, 0.2], [1, 0, 1, 2, 0]),
    ],
)
def test_evaluations_since_the_best(values, counts):
    assert evaluations_since_best(values, higher_is_better=True) == counts
    losses = [None if value is None else -value for value in values]
    assert evaluations_since_best(losses, higher_is_better=False) == counts


def keras(values, patience, factor, least):
    """The loop of Keras' ReduceLROnPlateau with mode="max", min_delta=0 and cooldown=0."""
    rate, best, wait = 1.0, -math.inf, 0
    for value in values:
        if value > best:
            best, wait = value, 0
        else:
            wait += 1
            if wait >= patience:
                rate, wait = max(rate * factor, least), 0
    return rate


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_a_rate_falls_as_that_of_keras(patience):
    config = OptimizerConfig(schedule="plateau", plateau_patience=patience, plateau_factor=0.5, final_scale=0.01)
    values = np.random.default_rng(0).integers(0, 40, 60).tolist()
    scales = []
    for count in range(len(values) + 1):
        since_best = evaluations_since_best(values[:count], higher_is_better=True)
        scales.append(plateau_scale(config, since_best))
        assert scales[-1] == pytest.approx(keras(values[:count], patience, 0.5, 0.01))
    assert scales[0] == 1
    assert scales[-1] < 1


def test_the_factor_scales_the_whole_update_and_stands_in_the_state():
    config = OptimizerConfig(name="adamw", learning_rate=0.1, schedule="plateau", weight_decay=0.5, warmup_steps=4)
    optimizer = create_optimizer(config, optax.constant_schedule(0.1))
    params = {"a/kernel": jnp.asarray([1.0, -2.0])}
    gradients = {"a/kernel": jnp.asarray([0.3, 0.1])}
    state = optimizer.init(params)
    assert rate_scale(state) == 1
    full, _ = optimizer.update(gradients, state, params)
    low, after = optimizer.update(gradients, with_rate_scale(state, jnp.float32(0.25)), params)
    np.testing.assert_allclose(low["a/kernel"], 0.25 * full["a/kernel"], rtol=1e-6)
    assert rate_scale(after) == 0.25
    assert rate_scale(create_optimizer(OptimizerConfig(), lambda step: 0.1).init(params)) is None
