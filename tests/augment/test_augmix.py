"""AugMix: its chains, and how it mixes them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from bloodcell_jax.augment import search_spaces
from bloodcell_jax.augment.augmix import MAX_DEPTH, _draw_weights, _plan, augmix
from bloodcell_jax.augment.randaugment import LayerPlan, assign_operation
from bloodcell_jax.augment.search_spaces import BLACK, Blend, Warp

KEY, BLOCK_KEY = jax.random.key(3), jax.random.key(4)


def test_augmix_is_algorithm_1_with_what_it_drew():
    """Each chain has one operation. The test repeats the draws with the same keys, and mixes the chains in NumPy."""
    count, width, block = 16, 2, 8
    slots = jnp.arange(count, dtype=jnp.int32)
    images = np.random.default_rng(0).random((count, 10, 10, 3)).astype(np.float32)
    found = jax.jit(lambda: augmix(KEY, BLOCK_KEY, slots, jnp.asarray(images), block=block, width=width, depth=1))()
    plan = _plan(3.0, "augmix", "none")
    weights_key, level_key = (jax.random.fold_in(KEY, use) for use in range(2))
    numbers = [chain * MAX_DEPTH for chain in range(width)]
    choices = [
        assign_operation(plan, jax.random.fold_in(BLOCK_KEY, number), jnp.arange(2), block).choice for number in numbers
    ]

    @functools.partial(jax.jit, static_argnums=0)
    def apply(choice, key, image):
        level = plan.draw_level(jax.random.fold_in(key, 0))
        sign = jax.random.rademacher(jax.random.fold_in(key, 1), (), jnp.float32)
        parameters = plan.space[choice](level, sign)
        return search_spaces.KERNELS[type(parameters)](image, parameters, "reflect")

    draw_weights = jax.jit(lambda slot: _draw_weights(jax.random.fold_in(weights_key, slot), width, 1.0))
    for slot in range(0, count, 5):
        weights, part = draw_weights(slot)
        assert abs(float(weights.sum()) - 1) < 1e-5
        chains = []
        for chain, number in enumerate(numbers):
            key = jax.random.fold_in(jax.random.fold_in(level_key, number), slot)
            chains.append(np.asarray(apply(int(choices[chain][slot]), key, images[slot])))
        mixed = sum(weight * image for weight, image in zip(np.asarray(weights), chains, strict=True))
        expected = (1 - float(part)) * images[slot] + float(part) * mixed
        np.testing.assert_allclose(found[slot], expected, atol=1e-5)


def test_chains_have_one_two_or_three_operations_each_as_often(monkeypatch):
    """If the only operation adds a hundredth, the sum shows the length of the chain."""
    add = LayerPlan((lambda level, sign: Blend(BLACK, shift=0.01),), 1.0, lambda key: jnp.float32(0), MAX_DEPTH)
    monkeypatch.setattr("bloodcell_jax.augment.augmix._plan", lambda *options: add)
    monkeypatch.setattr("bloodcell_jax.augment.augmix._draw_weights", lambda *_: (jnp.ones(1), jnp.float32(1)))
    gray = jnp.full((480, 4, 4, 3), 0.5)

    def lengths(**options):
        slots = jnp.arange(480, dtype=jnp.int32)
        found = jax.jit(lambda: augmix(KEY, BLOCK_KEY, slots, gray, block=32, width=1, **options))()
        return np.round((np.asarray(found)[:, 0, 0, 0] - 0.5) * 100).astype(int).reshape(15, 32)

    drawn = lengths()
    for length in (1, 2, 3):
        counts = (drawn == length).sum(axis=1)
        assert set(counts) <= {10, 11}, "a third of each block of 32"
    assert (np.ptp(drawn, axis=0) > 0).mean() > 0.9, "any place of a block has any length"
    for depth in (1, 2, 3):
        assert (lengths(depth=depth) == depth).all()


def test_augmix_draws_its_severity_its_mix_and_translate_y():
    plan = _plan(3.0, "augmix", "none")
    levels = np.asarray(jax.vmap(plan.draw_level)(jax.random.split(KEY, 2000)))
    assert 0.01 <= levels.min() < 0.02
    assert 0.29 < levels.max() <= 0.3
    assert len(_plan(3.0, "all", "none").space) == 13
    drawn = np.asarray(assign_operation(plan, KEY, jnp.arange(100), 32).choice)
    names = [type(operation(0.5, 1.0)) for operation in plan.space]
    assert abs((drawn == names.index(Warp) + 4).mean() - 1 / 9) < 0.02, "translate_y, which KerasCV never drew"
