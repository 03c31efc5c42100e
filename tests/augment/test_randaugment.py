"""RandAugment and TrivialAugment: the operation that an image gets, and its level."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax.augment import apply_policy, parse_policy, search_spaces
from bloodcell_jax.augment.assignment import assign
from bloodcell_jax.augment.randaugment import _plan, apply_operations, assign_operation, parse_timm
from bloodcell_jax.errors import UsageError

KEY, BLOCK_KEY = jax.random.key(3), jax.random.key(4)


@functools.partial(jax.jit, static_argnums=0)
def both_signs(operation, image):
    options = []
    for sign in (-1.0, 1.0):
        parameters = operation(jnp.float32(0.5), sign)
        kernel = search_spaces.KERNELS.get(type(parameters), lambda image, parameters, fill: image)
        options.append(kernel(image, parameters, "reflect"))
    return options


def test_every_image_goes_through_the_operation_it_drew_at_its_own_level():
    """A layer equals its operations one by one, so no row takes the place of another."""
    plan = _plan(n=1, m=15, preset="paper", timm="")
    images = jnp.asarray(np.random.default_rng(0).random((64, 12, 12, 3)), jnp.float32)
    keys = jax.random.split(KEY, 64)

    @jax.jit
    def layer():
        assignment = assign_operation(plan, BLOCK_KEY, jnp.arange(2), 32)
        return assignment.choice, apply_operations(plan, assignment, keys, images, fill="reflect")

    choice, found = layer()
    assert len(set(np.asarray(choice))) == 14
    for row in np.unique(np.asarray(choice), return_index=True)[1]:
        options = both_signs(plan.space[int(choice[row])], images[row])
        assert min(abs(option - found[row]).max() for option in options) < 1e-5


def test_signs_are_drawn_both_ways():
    plan = _plan(n=1, m=30, preset="paper", timm="")
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 12)[:, None], (320, 12, 12, 3))
    keys = jax.random.split(KEY, 320)
    only_translation = assign(BLOCK_KEY, jnp.arange(10), 32, [int(i == 3) for i in range(15)])
    moved = jax.jit(lambda: apply_operations(plan, only_translation, keys, ramp, fill="edge"))()[:, 6, 6, 0]
    assert 0.4 < (moved > ramp[0, 6, 6, 0]).mean() < 0.6


@pytest.mark.parametrize(
    ("text", "layers", "probability"),
    [("rand-m9-mstd0.5-inc1", 2, 0.5), ("rand-m7-n3", 3, 0.5), ("rand-p1", 2, 1.0)],
)
def test_timm_s_strings(text, layers, probability):
    plan = parse_timm(text)
    assert (plan.layers, plan.probability, len(plan.space)) == (layers, probability, 15)


@pytest.mark.parametrize(
    ("text", "mean", "deviation", "highest"),
    [("rand-m9-mstd0.5", 0.9, 0.05, 1.0), ("rand-m5", 0.5, 0.0, 0.5), ("rand-m8-mstd101", 0.4, 0.8 / 12**0.5, 0.8)],
)
def test_timm_s_magnitude(text, mean, deviation, highest):
    levels = jax.vmap(parse_timm(text).draw_level)(jax.random.split(KEY, 4000))
    assert abs(levels.mean() - mean) < 0.01
    assert abs(levels.std() - deviation) < 0.01
    assert levels.max() <= highest + 1e-6


@pytest.mark.parametrize("text", ["augmix-m3", "rand-m", "rand-q3", "rand-n0", "rand-n1.5", "rand-p2", "rand-mmax20"])
def test_mistakes_in_timm_s_strings_are_named(text):
    with pytest.raises(UsageError, match=f"timm={text}"):
        parse_timm(text)


def test_kerascv_s_levels_and_rate():
    plan = _plan(n=2, m=9, preset="kerascv", timm="")
    levels = jax.vmap(plan.draw_level)(jax.random.split(KEY, 4000))
    assert abs(levels.mean() - 0.5) < 0.01
    assert abs(levels.std() - 0.15) < 0.01
    assert plan.layers == 3
    choice = np.asarray(assign_operation(plan, KEY, jnp.arange(100), 32).choice)
    assert abs((choice == 10).mean() - 1 / 11) < 0.01
    assert abs((choice == 3).mean() - 1 / 11) < 0.01


def test_trivialaugment_draws_31_levels_alike():
    policy = parse_policy("trivialaugment")
    gray = jnp.full((640, 4, 4, 3), 0.25)
    changed = jax.jit(lambda: apply_policy(policy, KEY, jnp.arange(640, dtype=jnp.int32), gray))()
    # Only brightness, posterize and solarize change a flat gray. Each has probability 1/14, and the levels differ.
    shares = (abs(np.asarray(changed) - 0.25).max((1, 2, 3)) > 1e-3).mean()
    assert 1.2 / 14 < shares < 3 / 14
