"""Update rules and schedules by their published formulas, written out in numpy."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bloodcell_jax.config import Config, OptimizerConfig, StageConfig
from bloodcell_jax.errors import UsageError
from bloodcell_jax.models.network import leaves_by_path
from bloodcell_jax.models.registry import create_model, param_shapes
from bloodcell_jax.train.optimizers import OPTIMIZERS, create_optimizer
from bloodcell_jax.train.schedules import SCHEDULES, create_schedule
from bloodcell_jax.train.stages import plan_stages

RATE, DECAY = 0.1, 0.05


def adam(g, m, v, t, b1=0.9, b2=0.999):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + 1e-8), m, v


def lion(g, m, v, t, b1=0.9, b2=0.99):
    return np.sign(b1 * m + (1 - b1) * g), b2 * m + (1 - b2) * g, v


def momentum(g, m, v, t):
    m = 0.9 * m + g
    return m, m, v


@pytest.mark.parametrize(
    ("name", "rule", "decay"),
    [("adamw", adam, DECAY), ("adam", adam, 0.0), ("lion", lion, DECAY), ("sgd", momentum, DECAY)],
)
def test_an_update_rule(name, rule, decay):
    config = OptimizerConfig(name=name, learning_rate=RATE, schedule="constant", weight_decay=decay)
    optimizer = create_optimizer(config, create_schedule(config, steps=10, steps_per_epoch=1))
    rng = np.random.default_rng(0)
    params = {"a/kernel": rng.standard_normal((3, 2)), "a/bias": rng.standard_normal(2)}
    state = optimizer.init({k: jnp.asarray(v, jnp.float32) for k, v in params.items()})
    moments = dict.fromkeys(params, (0.0, 0.0))
    for step in range(1, 4):
        gradients = {k: rng.standard_normal(v.shape) for k, v in params.items()}
        as_arrays = [{k: jnp.asarray(v, jnp.float32) for k, v in tree.items()} for tree in (gradients, params)]
        updates, state = optimizer.update(as_arrays[0], state, as_arrays[1])
        for key, p in params.items():
            direction, *moments[key] = rule(gradients[key], *moments[key], step)
            expected = -RATE * (direction + (decay * p if key.endswith("kernel") else 0))
            np.testing.assert_allclose(updates[key], expected, rtol=1e-4, atol=1e-6)
            params[key] = p + expected


@pytest.mark.parametrize("variant", ["test_convnext2", "custom_cnn", "convnext_atto_ols"])
def test_muon_updates_the_matrices_between_stem_and_head(variant):
    """Kernels of convolutions are such matrices, those of depthwise convolutions are not."""
    leaves = leaves_by_path(param_shapes(create_model(variant, 8), 32))
    config = OptimizerConfig(name="muon")
    optimizer = create_optimizer(config, create_schedule(config, steps=10, steps_per_epoch=1))
    parts = optax.tree.get_all_with_path(jax.eval_shape(optimizer.init, leaves), "mu")
    momentum = next(mu for path, mu in parts if path[-1].tuple_name == "MuonState")
    found = {path for path, leaf in momentum.items() if not isinstance(leaf, optax.MaskedNode)}
    kernels = {path for path, leaf in leaves.items() if len(leaf.shape) > 1}
    assert found == {path for path in kernels if not re.match(r"head/|stem_|.*/depthwise/", path)}
    assert len(found) >= 8


@pytest.mark.parametrize("trainable", [("head.*", "!.*"), (".*bias", "!.*")])
def test_muon_is_refused_where_it_would_be_adam(trainable):
    stage = StageConfig(name="few", trainable=trainable, optimizer=OptimizerConfig(name="muon"))
    shapes = param_shapes(create_model("test_convnext2", 8), 32)
    with pytest.raises(UsageError, match=r"stage few: .*muon.* none; choose adamw"):
        plan_stages(Config(stages=[StageConfig(), stage]), shapes, epoch_size=64)
    stage = dataclasses.replace(stage, trainable=("head.*", "stage_3.*", "!.*"))
    assert len(plan_stages(Config(stages=[stage]), shapes, epoch_size=64)) == 1


def test_muon_makes_the_updates_of_matrices_orthogonal_and_as_large_as_adam_s():
    config = OptimizerConfig(name="muon", learning_rate=RATE, schedule="constant")
    optimizer = create_optimizer(config, create_schedule(config, steps=10, steps_per_epoch=1))
    rng = np.random.default_rng(0)
    names = ("stage_0/block_0/expand/kernel", "stage_0/block_0/expand/bias", "head/kernel")
    params = dict(zip(names, (jnp.zeros(shape) for shape in ((6, 24), (24,), (6, 3))), strict=True))
    state, means = optimizer.init(params), np.zeros((6, 24))
    for step in range(1, 4):
        gradients = {k: rng.standard_normal(v.shape) for k, v in params.items()}
        updates, state = optimizer.update({k: jnp.asarray(v, jnp.float32) for k, v in gradients.items()}, state, params)
        # Nesterov's momentum without bias, as far as a direction needs it.
        means = 0.95 * means + 0.05 * gradients[names[0]]
        ahead = 0.95 * means / (1 - 0.95 ** (step + 1)) + 0.05 * gradients[names[0]] / (1 - 0.95**step)
        left, _, right = np.linalg.svd(ahead, full_matrices=False)
        direction = np.asarray(updates[names[0]]) / (-RATE * 0.2 * 24**0.5)
        # Five steps of Newton-Schulz bring every singular value near 1, to 0.7 at least and 1.2 at most.
        values = np.diag(left.T @ direction @ right.T)
        np.testing.assert_allclose(direction, left @ np.diag(values) @ right, atol=1e-3)
        assert values.min() > 0.6
        assert values.max() < 1.3
    # Adam's first updates of the rest are of the size of the rate.
    first, _ = optimizer.update({k: jnp.ones_like(v) for k, v in params.items()}, optimizer.init(params), params)
    for name in names[1:]:
        np.testing.assert_allclose(first[name], -RATE, rtol=1e-5)


def test_clipping_scales_the_whole_gradient_before_the_rule():
    config = OptimizerConfig(name="sgd", learning_rate=1.0, schedule="constant", clip_norm=1.0)
    optimizer = create_optimizer(config, create_schedule(config, steps=10, steps_per_epoch=1))
    gradients = {"a/kernel": jnp.array([3.0]), "b/kernel": jnp.array([4.0])}
    updates, _ = optimizer.update(gradients, optimizer.init(gradients), gradients)
    np.testing.assert_allclose([updates["a/kernel"][0], updates["b/kernel"][0]], [-0.6, -0.8], rtol=1e-6)


def test_moments_take_the_dtype_asked_for():
    config = OptimizerConfig(name="lion", moment_dtype="bfloat16")
    state = create_optimizer(config, lambda step: 0.1).init({"a/kernel": jnp.zeros(3)})
    assert state[0].mu["a/kernel"].dtype == jnp.bfloat16


def cosine_down(first, last, steps):
    return last + (first - last) * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"schedule": "constant"}, [1.0] * 10),
        ({"schedule": "linear", "final_scale": 0.5}, np.linspace(1, 0.5, 11)[:10]),
        ({"schedule": "cosine"}, (1 + np.cos(np.pi * np.arange(10) / 10)) / 2),
        ({"schedule": "cosine", "warmup_steps": 4}, [0.25, 0.5, 0.75, 1, *(1 + np.cos(np.pi * np.arange(6) / 6)) / 2]),
        ({"schedule": "exponential", "final_scale": 0.01}, 0.01 ** (np.arange(10) / 10)),
        (
            {"schedule": "one_cycle"},
            [*(0.52 - 0.48 * np.cos(np.pi * np.arange(3) / 3)), *cosine_down(1, 4e-6, 7)],
        ),
        ({"schedule": "constant", "warmup_epochs": 2.0}, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]),
        ({"schedule": "constant", "warmup_epochs": 100.0}, np.arange(1, 11) / 10),
    ],
)
def test_a_schedule(fields, expected):
    config = OptimizerConfig(learning_rate=1.0, **fields)
    schedule = create_schedule(config, steps=10, steps_per_epoch=2)
    np.testing.assert_allclose([schedule(step) for step in range(10)], expected, rtol=1e-5, atol=1e-6)


def test_every_choice_of_the_configuration_is_there():
    choices = {field.name: field.metadata["choices"] for field in dataclasses.fields(OptimizerConfig)}
    assert set(choices["name"]) == set(OPTIMIZERS)
    assert set(choices["schedule"]) == set(SCHEDULES)
