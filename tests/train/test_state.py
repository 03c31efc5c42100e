"""An update is the optimizer's where the gradient is finite, and nothing at all where it is not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bloodcell_jax.config import OptimizerConfig
from bloodcell_jax.train.freezing import partition
from bloodcell_jax.train.guard import Guard
from bloodcell_jax.train.optimizers import create_optimizer
from bloodcell_jax.train.packing import Joining
from bloodcell_jax.train.state import apply_gradients, begin_stage, by_branch, by_choice, create_ema_decay, create_state

PARAMS = {"frozen": {"kernel": np.ones(3, np.float32)}, "head": {"kernel": np.arange(4, dtype=np.float32) - 2}}
MASK = {"frozen": {"kernel": False}, "head": {"kernel": True}}
GRADIENTS = {"head/kernel": jnp.asarray([0.5, -1.0, 2.0, 0.0])}


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("moment_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["adamw", "adam", "lion", "sgd"])
def test_an_update_is_the_optimizers_or_none(name, moment_dtype):
    config = OptimizerConfig(name=name, weight_decay=0.1, clip_norm=1.0, moment_dtype=moment_dtype)
    optimizer = create_optimizer(config, optax.constant_schedule(0.1))
    guard, loss = Guard(max_bad_steps=10), jnp.ones(())
    apply = jax.jit(lambda state, gradients: apply_gradients(state, loss, gradients, optimizer, guard, None))
    start = begin_stage(create_state(PARAMS, guard, with_ema=False), optimizer, MASK, Joining("cpu"))

    trainable, _ = partition(PARAMS, MASK)
    updates, opt_state = jax.jit(optimizer.update)(GRADIENTS, start.opt_state, trainable)
    after, norms = apply(start, GRADIENTS)
    np.testing.assert_allclose(
        after.params["head"]["kernel"], (trainable["head/kernel"] + updates["head/kernel"]), 1e-6
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2), after.opt_state, opt_state)
    np.testing.assert_allclose(norms["norm/update"], optax.tree.norm(updates), rtol=1e-6)
    np.testing.assert_allclose(norms["norm/parameter"], np.sqrt(6), rtol=1e-6)
    assert after.guard.bad_steps == 0

    for bad in (np.nan, np.inf):
        skipped, norms = apply(after, {"head/kernel": GRADIENTS["head/kernel"].at[1].set(bad)})
        assert_equal((skipped.params, skipped.opt_state), (after.params, after.opt_state))
        assert (skipped.step, skipped.guard.bad_steps, norms["norm/update"]) == (2, 1, 0)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_the_average_of_frozen_parameters_costs_nothing(platform):
    """The compiler counts the bytes that an update reads and writes: none are of the large frozen kernel."""
    config = OptimizerConfig(name="adamw", weight_decay=0.1)
    optimizer, guard = create_optimizer(config, optax.constant_schedule(0.1)), Guard(max_bad_steps=10)
    params = {"frozen": {"kernel": np.ones((1024, 1024), np.float32)}, "head": {"kernel": np.ones((8, 8), np.float32)}}
    large = params["frozen"]["kernel"].nbytes

    def bytes_accessed(head_only, decay):
        mask = {"frozen": {"kernel": not head_only}, "head": {"kernel": True}}
        state = begin_stage(create_state(params, guard, with_ema=True), optimizer, mask, Joining(platform))
        gradients = jax.tree.map(jnp.ones_like, state.packed.trainable)
        apply = jax.jit(
            lambda state, gradients: apply_gradients(state, 1.0, gradients, optimizer, guard, decay), donate_argnums=0
        )
        compiled = apply.lower(state, gradients).compile()
        memory = compiled.memory_analysis()
        # All of the state is updated where it lies.
        assert memory.output_size_in_bytes - memory.alias_size_in_bytes < 1000
        return compiled.cost_analysis()["bytes accessed"]

    decay = create_ema_decay(0.9, warmup=False)
    assert bytes_accessed(True, decay) < 0.1 * large
    # The measure sees an average where there is one: it is read and written, and so are the parameters.
    assert bytes_accessed(False, decay) - bytes_accessed(False, None) >= 2 * large


@pytest.mark.parametrize("way", [by_branch, by_choice])
def test_both_ways_to_update_where_it_is_good(way):
    def update(x, y):
        return x + y, {"moment": y * 2}

    def skip(x, y):
        return x, {"moment": y}

    for good, function in ((True, update), (False, skip)):
        operands = (jnp.asarray([1.0, np.nan]), jnp.ones(2))
        assert_equal(jax.jit(lambda good, *xs: way(good, update, skip, *xs))(good, *operands), function(*operands))
