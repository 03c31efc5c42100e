"""Policies: what a string means, and what happens to a picture depends on its slot alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax.augment import apply_policy, parse_policy
from bloodcell_jax.config import AugmentConfig
from bloodcell_jax.errors import UsageError

DEFAULT = AugmentConfig().policy
IMAGES = np.random.default_rng(0).random((16, 8, 8, 3)).astype(np.float32)
SLOTS = np.arange(16, dtype=np.int32)
KEY = jax.random.key(5)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (DEFAULT, DEFAULT),
        (" d4 | hue : delta = 0.02 , p = 0.5 ", "d4|hue:delta=0.02,p=0.5"),
        ("brightness:delta=-0.1..0.30", "brightness:delta=-0.1..0.3"),
        ("contrast:p=1", "contrast:p=1"),
        ("hue|hue", "hue|hue"),
        ("none", "none"),
        ("", "none"),
    ],
)
def test_a_policy_and_its_canonical_form(text, canonical):
    policy = parse_policy(text)
    assert str(policy) == canonical
    assert parse_policy(canonical) == policy
    assert hash(policy) == hash(parse_policy(canonical))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("d4|", "an operation is missing"),
        ("|d4", "an operation is missing"),
        ("blur", "unknown operation 'blur'; known are d4, brightness"),
        ("hue:0.2", "'0.2' is no option; write hue:key=value, with delta=0.02, p=1"),
        ("hue:delta=", "'delta=' is no option"),
        ("hue:", "'' is no option"),
        ("hue:strength=0.1", "unknown option 'strength'; it takes delta=0.02, p=1"),
        ("hue:delta=0.1,delta=0.2", "delta is given twice"),
        ("hue:delta=much", "hue: delta=much must be a number from 0 to 0.5 or a range"),
        ("hue:delta=0.7", "must be a number from 0 to 0.5"),
        ("hue:delta=-0.1", "must be a number from 0 to 0.5"),
        ("hue:delta=nan", "must be a number from 0 to 0.5"),
        ("hue:delta=0.3..0.1", "runs downwards; write 0.1..0.3"),
        ("hue:p=1.5", "p=1.5 must be a probability"),
        ("hue:p=0..1", "must be a probability"),
        ("d4:delta=0.1", "unknown option 'delta'; it takes p=1"),
    ],
)
def test_mistakes_are_named_with_the_policy(text, message):
    with pytest.raises(UsageError) as error:
        parse_policy(text)
    assert str(error.value).startswith(f"policy {text!r}: ")
    assert message in str(error.value)


def test_what_happens_to_a_picture_depends_on_its_slot_alone():
    policy = parse_policy(DEFAULT.replace("hue:", "hue:p=0.5,"))
    apply = jax.jit(lambda slots, images: apply_policy(policy, KEY, slots, images))
    whole = np.asarray(apply(SLOTS, IMAGES))
    order = np.random.default_rng(1).permutation(16)
    np.testing.assert_array_equal(apply(SLOTS[order], IMAGES[order]), whole[order])
    for start in range(0, 16, 4):
        part = slice(start, start + 4)
        np.testing.assert_array_equal(apply(SLOTS[part], IMAGES[part]), whole[part])
    assert not np.array_equal(apply(SLOTS + 16, IMAGES), whole)
    other = jax.jit(lambda: apply_policy(policy, jax.random.key(6), SLOTS, IMAGES))()
    assert not np.array_equal(other, whole)


def test_dtype_and_range_are_kept():
    policy = parse_policy("d4|brightness:delta=1|contrast:delta=1|saturation:delta=1|hue:delta=0.5")
    for dtype in (jnp.float32, jnp.bfloat16):
        found = apply_policy(policy, KEY, SLOTS, jnp.asarray(IMAGES, dtype))
        assert (found.dtype, found.shape) == (dtype, IMAGES.shape)
        assert 0 <= found.min() <= found.max() <= 1


def test_no_policy_changes_nothing():
    np.testing.assert_array_equal(apply_policy(parse_policy("none"), KEY, SLOTS, IMAGES), IMAGES)


@pytest.mark.parametrize("probability", [0, 0.25, 1])
def test_p_is_the_share_of_pictures_that_go_through(probability):
    images, slots = jnp.full((2000, 2, 2, 3), 0.5), jnp.arange(2000)
    policy = parse_policy(f"brightness:delta=0.1..0.2,p={probability}")
    changed = np.asarray(jax.jit(lambda: apply_policy(policy, KEY, slots, images))())[:, 0, 0, 0] != 0.5
    # Standard deviation 0.01.
    assert abs(changed.mean() - probability) <= 0.05 * (0 < probability < 1)


def test_the_same_operation_twice_draws_twice():
    once = parse_policy("brightness:delta=0.2")
    twice = parse_policy("brightness:delta=0.2|brightness:delta=0.2")
    images = jnp.full((4, 2, 2, 3), 0.5)
    slots = jnp.arange(4)
    first = apply_policy(once, KEY, slots, images) - 0.5
    both = apply_policy(twice, KEY, slots, images) - 0.5
    assert not np.allclose(both, 2 * first, atol=1e-3)
