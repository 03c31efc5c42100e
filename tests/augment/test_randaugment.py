"""RandAugment and its kin: what each operation does at a magnitude, which one an image gets, and at what level."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax.augment import apply_policy, parse_policy, search_spaces
from bloodcell_jax.augment.assignment import assign
from bloodcell_jax.augment.augmix import MAX_DEPTH, _draw_weights, augmix
from bloodcell_jax.augment.augmix import _plan as augmix_plan
from bloodcell_jax.augment.randaugment import LayerPlan, _plan, apply_operations, assign_operation, parse_timm
from bloodcell_jax.augment.search_spaces import (
    BLACK,
    CHANNEL_MEANS,
    GRAY,
    MEAN_GRAY,
    AutoContrast,
    Blend,
    Equalize,
    Identity,
    Sharpen,
    Tone,
    Warp,
)
from bloodcell_jax.errors import UsageError

KEY, BLOCK_KEY = jax.random.key(3), jax.random.key(4)
BITS_4, ADD_55 = Tone(bits=4.0), Tone(add=55 / 255, below=128 / 255)

# The published tables at one level, all signs positive: 9 of 30 for the papers, 5 of 10 for timm and AugMix.
SPACES = {
    "paper": (
        search_spaces.paper(),
        0.3,
        [
            Identity(),
            Warp(shear_x=0.09),
            Warp(shear_y=0.09),
            Warp(translate_x=0.1359517),
            Warp(translate_y=0.1359517),
            Warp(degrees=9.0),
            Blend(BLACK, 1.27),
            Blend(GRAY, 1.27),
            Blend(MEAN_GRAY, 1.27),
            Sharpen(1.27),
            Tone(bits=7.0),
            Tone(threshold=0.7),
            AutoContrast(),
            Equalize(),
        ],
    ),
    "trivial": (
        search_spaces.trivial_wide(),
        1.0,
        [
            Identity(),
            Warp(shear_x=0.99),
            Warp(shear_y=0.99),
            Warp(translate_x=0.1428571),
            Warp(translate_y=0.1428571),
            Warp(degrees=135.0),
            Blend(BLACK, 1.99),
            Blend(GRAY, 1.99),
            Blend(MEAN_GRAY, 1.99),
            Sharpen(1.99),
            Tone(bits=2.0),
            Tone(threshold=0.0),
            AutoContrast(),
            Equalize(),
        ],
    ),
    "timm": (
        search_spaces.timm(increasing=False),
        0.5,
        [
            Warp(degrees=15.0),
            Warp(shear_x=0.15),
            Warp(shear_y=0.15),
            Warp(translate_x=0.225),
            Warp(translate_y=0.225),
            Blend(BLACK, 1.0),
            Blend(GRAY, 1.0),
            Blend(MEAN_GRAY, 1.0),
            Sharpen(1.0),
            Tone(threshold=0.0),
            Tone(bits=2.0),
            Tone(threshold=128 / 255),
            ADD_55,
            AutoContrast(),
            Equalize(),
        ],
    ),
    "timm increasing": (
        search_spaces.timm(increasing=True),
        0.5,
        [
            Warp(degrees=15.0),
            Warp(shear_x=0.15),
            Warp(shear_y=0.15),
            Warp(translate_x=0.225),
            Warp(translate_y=0.225),
            Blend(BLACK, 1.45),
            Blend(GRAY, 1.45),
            Blend(MEAN_GRAY, 1.45),
            Sharpen(1.45),
            Tone(threshold=0.0),
            Tone(bits=2.0),
            Tone(threshold=128 / 255),
            ADD_55,
            AutoContrast(),
            Equalize(),
        ],
    ),
    "kerascv": (
        search_spaces.keras_cv(),
        0.5,
        [
            Warp(shear_x=0.5),
            Warp(shear_y=0.5),
            Warp(translate_x=0.5),
            Warp(translate_y=0.5),
            Blend(BLACK, 1.0, 0.5),
            Blend(GRAY, 0.5),
            Blend(CHANNEL_MEANS, 1.5),
            Tone(add=ADD_55.add, threshold=0.5),
            AutoContrast(),
            Equalize(),
        ],
    ),
    "augmix": (
        search_spaces.augmix(),
        0.3,
        [
            Warp(degrees=9.0),
            Warp(shear_x=0.09),
            Warp(shear_y=0.09),
            Warp(translate_x=0.1),
            Warp(translate_y=0.1),
            Tone(bits=3.0),
            Tone(threshold=180 / 255),
            AutoContrast(),
            Equalize(),
        ],
    ),
    "augmix kerascv": (
        search_spaces.augmix_keras_cv(),
        0.1,
        [
            Warp(degrees=171.887339),
            Warp(shear_x=0.03),
            Warp(shear_y=0.03),
            Warp(translate_x=0.0333333),
            Tone(bits=3.0),
            Tone(threshold=0.1),
            AutoContrast(),
            Equalize(),
        ],
    ),
}


@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_its_published_table(name):
    space, level, expected = SPACES[name]
    assert len(space) == len(expected)
    for operation, parameters in zip(space, expected, strict=True):
        found = operation(jnp.float32(level), 1.0)
        assert type(found) is type(parameters)
        np.testing.assert_allclose(found, parameters, rtol=1e-5)
        mirrored = operation(jnp.float32(level), -1.0)
        if isinstance(parameters, Warp) and "kerascv" not in name:
            np.testing.assert_allclose(mirrored, -np.array(parameters), rtol=1e-5)


def test_every_image_goes_through_the_operation_it_drew_at_its_own_level():
    """One layer against its operations one by one: no row is mixed up with another."""
    plan = _plan(n=1, m=15, preset="paper", timm="")
    images = jnp.asarray(np.random.default_rng(0).random((64, 12, 12, 3)), jnp.float32)
    keys = jax.random.split(KEY, 64)

    @jax.jit
    def layer():
        assignment = assign_operation(plan, BLOCK_KEY, jnp.arange(2), 32)
        return assignment.choice, apply_operations(plan, assignment, keys, images, fill="reflect")

    choice, found = layer()
    assert len(set(np.asarray(choice))) == 14
    for row in range(0, 64, 3):
        options = []
        for sign in (-1.0, 1.0):
            parameters = plan.space[int(choice[row])](jnp.float32(0.5), sign)
            kernel = search_spaces.KERNELS.get(type(parameters), lambda image, parameters, fill: image)
            options.append(kernel(images[row], parameters, "reflect"))
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
    # Of 14 operations only brightness, posterize and solarize change a flat gray; 1/14 each, at differing levels.
    shares = (abs(np.asarray(changed) - 0.25).max((1, 2, 3)) > 1e-3).mean()
    assert 1.2 / 14 < shares < 3 / 14


def test_augmix_is_algorithm_1_with_what_it_drew():
    """Chains of one operation: the draws are taken apart by the same folding of keys, and mixed again in NumPy."""
    count, width, block = 16, 3, 8
    slots = jnp.arange(count, dtype=jnp.int32)
    images = np.random.default_rng(0).random((count, 10, 10, 3)).astype(np.float32)
    found = jax.jit(lambda: augmix(KEY, BLOCK_KEY, slots, jnp.asarray(images), block=block, depth=1))()
    plan = augmix_plan(3.0, "augmix", "none")
    weights_key, level_key = (jax.random.fold_in(KEY, use) for use in range(2))
    numbers = [chain * MAX_DEPTH for chain in range(width)]
    choices = [
        assign_operation(plan, jax.random.fold_in(BLOCK_KEY, number), jnp.arange(2), block).choice for number in numbers
    ]
    for slot in range(0, count, 3):
        weights, part = _draw_weights(jax.random.fold_in(weights_key, slot), width, 1.0)
        assert abs(float(weights.sum()) - 1) < 1e-5
        chains = []
        for chain, number in enumerate(numbers):
            key = jax.random.fold_in(jax.random.fold_in(level_key, number), slot)
            level = plan.draw_level(jax.random.fold_in(key, 0))
            sign = jax.random.rademacher(jax.random.fold_in(key, 1), (), jnp.float32)
            parameters = plan.space[int(choices[chain][slot])](level, sign)
            kernel = search_spaces.KERNELS[type(parameters)]
            chains.append(np.asarray(kernel(jnp.asarray(images[slot]), parameters, "reflect")))
        mixed = sum(weight * image for weight, image in zip(np.asarray(weights), chains, strict=True))
        expected = (1 - float(part)) * images[slot] + float(part) * mixed
        np.testing.assert_allclose(found[slot], expected, atol=1e-5)


def test_chains_have_one_two_or_three_operations_each_as_often(monkeypatch):
    """With one operation that adds a hundredth, what a chain added tells how long it was."""
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
    plan = augmix_plan(3.0, "augmix", "none")
    levels = np.asarray(jax.vmap(plan.draw_level)(jax.random.split(KEY, 2000)))
    assert 0.01 <= levels.min() < 0.02
    assert 0.29 < levels.max() <= 0.3
    assert len(augmix_plan(3.0, "all", "none").space) == 13
    drawn = np.asarray(assign_operation(plan, KEY, jnp.arange(100), 32).choice)
    names = [type(operation(0.5, 1.0)) for operation in plan.space]
    assert abs((drawn == names.index(Warp) + 4).mean() - 1 / 9) < 0.02, "translate_y, which KerasCV never drew"
