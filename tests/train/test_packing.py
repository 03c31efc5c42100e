"""Trainable parameters packed for a platform: other arrays, the same leaves."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from bloodcell_jax.config import OptimizerConfig
from bloodcell_jax.models.registry import create_model, param_shapes
from bloodcell_jax.train.freezing import trainable_mask
from bloodcell_jax.train.guard import Guard
from bloodcell_jax.train.optimizers import create_optimizer
from bloodcell_jax.train.packing import Joining, PackedParams
from bloodcell_jax.train.state import TrainState, apply_gradients, begin_stage, create_ema_decay, create_state

SHAPES = param_shapes(create_model("test_convnext3", 8), 32)
GENERATOR = np.random.default_rng(0)
PARAMS = jax.tree.map(lambda leaf: GENERATOR.standard_normal(leaf.shape).astype(np.float32), SHAPES)
DECAY = create_ema_decay(0.9, warmup=False)
ALL, HEAD = trainable_mask(PARAMS, (".*",)), trainable_mask(PARAMS, ("head/.*", "head_norm/.*", "!.*"))
PLATFORMS = ["cpu", "tpu", "gpu", "a platform of tomorrow"]


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def optimizer_of(name):
    config = OptimizerConfig(name=name, weight_decay=0.1, clip_norm=1.0, moment_dtype="bfloat16")
    return create_optimizer(config, optax.constant_schedule(0.1))


def begun(name, mask, platform):
    state = create_state(jax.tree.map(np.copy, PARAMS), Guard(3), with_ema=True)
    return begin_stage(state, optimizer_of(name), mask, Joining(platform, matrices_apart=name == "muon"))


@pytest.mark.parametrize("mask", [ALL, HEAD], ids=["all", "head"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_is_packed_is_unpacked_again(platform, mask):
    packed = PackedParams.of(PARAMS, mask, Joining(platform))
    assert_equal(packed.unpack(), PARAMS)
    count = sum(
        leaf.size for leaf, trains in zip(jax.tree.leaves(PARAMS), jax.tree.leaves(mask), strict=True) if trains
    )
    stored = sum(array.size for array in packed.trainable.values())
    assert count <= stored < count + 2 * 1024


def test_how_many_arrays_a_platform_has():
    leaves = jax.tree.leaves(PARAMS)
    counts = {name: len(PackedParams.of(PARAMS, ALL, Joining(name)).trainable) for name in PLATFORMS}
    # Of vectors none decays here.
    matrices = sum(leaf.ndim > 1 for leaf in leaves)
    assert counts == {"cpu": len(leaves), "tpu": matrices + 1, "gpu": 2, "a platform of tomorrow": len(leaves)}


@pytest.mark.parametrize(
    ("platform", "name"),
    [
        ("gpu", "adamw"),
        ("tpu", "lion"),
        ("gpu", "muon"),
        *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in (("gpu", "lion"), ("tpu", "adamw"))),
        *(pytest.param(platform, "sgd", marks=pytest.mark.exhaustive) for platform in ("gpu", "tpu")),
    ],
)
def test_an_update_is_the_same_for_every_packing(platform, name):
    """Moments, average and parameters; what differs is the order in which norms are summed."""
    gradients = {path: GENERATOR.standard_normal(leaf.shape, np.float32) for path, leaf in leaves_of(PARAMS).items()}
    trees, norms = {}, {}
    for kind in ("cpu", platform):
        state = begun(name, ALL, kind)
        apply = jax.jit(lambda state, given: apply_gradients(state, 1.0, given, optimizer_of(name), Guard(3), DECAY))
        for _ in range(2):
            state, norms[kind] = apply(state, state.packed.packing.pack(gradients))
        trees[kind] = state.to_trees()
    assert jax.tree.structure(trees["cpu"]) == jax.tree.structure(trees[platform])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-5),
        trees["cpu"]["optimizer"],
        trees[platform]["optimizer"],
    )
    for part in ("params", "ema"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), trees["cpu"][part], trees[platform][part]
        )
    for key, value in norms["cpu"].items():
        np.testing.assert_allclose(norms[platform][key], value, rtol=1e-5)


@pytest.mark.parametrize(("saved", "resumed"), [("gpu", "cpu"), ("cpu", "tpu"), ("tpu", "gpu"), ("gpu", "gpu")])
def test_a_checkpoint_knows_nothing_of_packing(saved, resumed):
    before = begun("adamw", HEAD, saved)
    trees = jax.device_get(before.to_trees())
    assert set(trees["optimizer"][1].mu) == {"head/bias", "head/kernel", "head_norm/bias", "head_norm/scale"}
    after = TrainState.from_trees(trees, before.guard.skipped_steps, HEAD, Joining(resumed))
    assert_equal(jax.device_get(after), jax.device_get(begun("adamw", HEAD, resumed)))


def leaves_of(params):
    return PackedParams.of(params, ALL, Joining("cpu")).trainable


def test_the_average_of_frozen_parameters_does_not_move():
    state = begun("sgd", HEAD, "cpu")
    behind = jax.tree.map(lambda leaf: leaf + 1, state.packed_ema)
    state = dataclasses.replace(state, packed_ema=behind)
    gradients = {path: np.ones(leaf.shape, np.float32) for path, leaf in state.packed.trainable.items()}
    after, _ = apply_gradients(state, 1.0, gradients, optimizer_of("sgd"), Guard(3), DECAY)
    assert_equal(after.packed_ema.frozen, behind.frozen)
    assert all((after.packed_ema.trainable[path] != behind.trainable[path]).all() for path in gradients)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_packing_does_not_depend_on_the_order_of_leaves(platform):
    """A network's parameters come in the order of its layers, and restored ones in that of their names."""
    backwards = dict(reversed(PARAMS.items()))
    one, other = (PackedParams.of(params, ALL, Joining(platform)) for params in (PARAMS, backwards))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert_equal(one.trainable, other.trainable)


def test_an_average_that_warms_up_forgets_the_first_weights():
    """TensorFlow's rule; with its first decay of 0.1 the average after an update is nearly the new weights."""
    decay = create_ema_decay(0.999, warmup=True)
    assert [float(decay(step)) for step in (0, 8, 90, 10**6)] == pytest.approx([0.1, 0.5, 0.91, 0.999])
    gradients = {path: np.ones(leaf.shape, np.float32) for path, leaf in leaves_of(PARAMS).items()}
    state = begun("sgd", ALL, "cpu")
    after, _ = apply_gradients(state, 1.0, gradients, optimizer_of("sgd"), Guard(3), decay)
    for path, before in state.packed.trainable.items():
        expected = 0.1 * before + 0.9 * after.packed.trainable[path]
        np.testing.assert_allclose(after.packed_ema.trainable[path], expected, rtol=1e-5, atol=1e-7)
    assert create_ema_decay(None, warmup=False) is None
