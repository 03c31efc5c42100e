"""Policies: the meaning of a string, and the change of an image, which depends only on its slot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax.augment import apply_policy, apply_views, parse_mix, parse_policy
from bloodcell_jax.augment.policies import Augmentation
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
        (
            "posterize:bits=4..8|affine:degrees=30,fill=edge,p=0.3",
            "posterize:bits=4..8|affine:degrees=30,fill=edge,p=0.3",
        ),
        ("randaugment:timm=rand-m9-mstd0.5-inc1", "randaugment:timm=rand-m9-mstd0.5-inc1"),
        ("augmix:severity=3|randaugment:preset=kerascv", "augmix:severity=3|randaugment:preset=kerascv"),
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
    ("text", "parts"),
    [
        ("d4|", ["missing"]),
        ("|d4", ["missing"]),
        ("blur", ["unknown", "'blur'", "gaussian_blur?"]),
        ("randaugmet", ["unknown", "'randaugmet'", "randaugment or trivialaugment?"]),
        ("xyz", ["unknown", "'xyz'", "d4, affine, random_resized_crop"]),
        ("randaugment:n=1.5", ["randaugment: n=1.5", "whole", "1 to 10"]),
        ("randaugment:n=1..2", ["randaugment: n=1..2", "whole", "1 to 10"]),
        ("randaugment:preset=keras", ["randaugment: preset=keras", "paper, kerascv"]),
        ("randaugment:timm=rand-m9-x1", ["randaugment: timm=rand-m9-x1", "'x1'"]),
        ("randaugment:timm=rand-m25-mmax10", ["rand-m25-mmax10", "m at most mmax", "10"]),
        ("randaugment:timm=rand-m9-inc2", ["rand-m9-inc2", "inc must be 0 or 1"]),
        ("randaugment:timm=rand-m9,n=9", ["randaugment: n does nothing beside timm"]),
        ("randaugment:preset=kerascv,n=1,m=0", ["n, m do nothing beside preset=kerascv"]),
        ("augmix:ops=all,compat=kerascv", ["augmix: ops does nothing beside compat=kerascv"]),
        ("gaussian_blur:sigma=8..8", ["radius=4", "sigma=8", "radius=32"]),
        ("affine:fill=white", ["affine: fill=white", "reflect, edge, constant"]),
        ("posterize:bits=0..9", ["posterize: bits=0..9", "0 to 8", "0..8"]),
        ("mixup", ["unknown", "'mixup'"]),
        ("hue:0.2", ["hue: '0.2'", "delta=0.02, p=1"]),
        ("hue:delta=", ["hue: 'delta='", "delta=0.02, p=1"]),
        ("hue:", ["hue: ''", "delta=0.02, p=1"]),
        ("hue:strength=0.1", ["hue: ", "'strength'", "delta=0.02, p=1"]),
        ("hue:delta=0.1,delta=0.2", ["hue: delta", "twice"]),
        ("hue:delta=much", ["hue: delta=much", "0 to 0.5", "-0.5..0.5"]),
        ("hue:delta=0.7", ["hue: delta=0.7", "0 to 0.5"]),
        ("hue:delta=-0.1", ["hue: delta=-0.1", "0 to 0.5"]),
        ("hue:delta=nan", ["hue: delta=nan", "0 to 0.5"]),
        ("hue:delta=0.3..0.1", ["hue: delta=0.3..0.1", "0.1..0.3"]),
        ("hue:p=1.5", ["hue: p=1.5", "0 to 1"]),
        ("hue:p=0..1", ["hue: p=0..1", "0 to 1"]),
        ("d4:delta=0.1", ["d4: ", "'delta'", "p=1"]),
        ("colour_jitter:delta=0.1", ["color_jitter: ", "'delta'", "brightness=0.2"]),
        ("enhance_colour", ["unknown", "'enhance_colour'"]),
    ],
)
def test_mistakes_are_named_with_the_policy(text, parts):
    with pytest.raises(UsageError) as error:
        parse_policy(text)
    assert str(error.value).startswith(f"policy {text!r}: ")
    for part in parts:
        assert part in str(error.value)


def test_the_change_of_an_image_depends_only_on_its_slot():
    policy = parse_policy(DEFAULT.replace("hue:", "hue:p=0.5,"))
    apply = jax.jit(lambda slots, images, key=KEY: apply_policy(policy, key, slots, images))
    whole = np.asarray(apply(SLOTS, IMAGES))
    order = np.random.default_rng(1).permutation(16)
    np.testing.assert_array_equal(apply(SLOTS[order], IMAGES[order]), whole[order])
    for start in range(0, 16, 4):
        part = slice(start, start + 4)
        np.testing.assert_array_equal(apply(SLOTS[part], IMAGES[part]), whole[part])
    assert not np.array_equal(apply(SLOTS + 16, IMAGES), whole)
    assert not np.array_equal(apply(SLOTS, IMAGES, jax.random.key(6)), whole)


def test_dtype_and_range_are_kept():
    policy = parse_policy("d4|brightness:delta=1|contrast:delta=1|saturation:delta=1|hue:delta=0.5")
    apply = jax.jit(lambda images: apply_policy(policy, KEY, SLOTS, images))
    for dtype in (jnp.float32, jnp.bfloat16):
        found = apply(jnp.asarray(IMAGES, dtype))
        assert (found.dtype, found.shape) == (dtype, IMAGES.shape)
        assert 0 <= found.min() <= found.max() <= 1


def test_no_policy_changes_nothing():
    np.testing.assert_array_equal(apply_policy(parse_policy("none"), KEY, SLOTS, IMAGES), IMAGES)


@pytest.mark.parametrize("probability", [0, 0.25, 1])
def test_p_is_the_share_of_images_that_go_through(probability):
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
    apply = jax.jit(lambda: [apply_policy(policy, KEY, slots, images) - 0.5 for policy in (once, twice)])
    first, both = apply()
    assert not np.allclose(both, 2 * first, atol=1e-3)


# test_devices.py has policies with layers of RandAugment and AugMix.
ASSIGNED = "affine:p=0.4|equalize:p=0.25"


def test_an_assigned_operation_depends_only_on_slot_and_block():
    policy = parse_policy(ASSIGNED)
    apply = jax.jit(lambda slots, images: apply_policy(policy, KEY, slots, images, block=4))
    whole = np.asarray(apply(SLOTS, IMAGES))
    for start in range(0, 16, 8):
        part = slice(start, start + 8)
        np.testing.assert_array_equal(apply(SLOTS[part], IMAGES[part]), whole[part])


@pytest.mark.parametrize("name", ["affine", "sharpness:factor=3"])
def test_p_of_an_assigned_operation_is_its_share_of_each_block(name):
    images = jnp.asarray(np.random.default_rng(0).random((40, 8, 8, 3)) * 0.5, jnp.float32)
    separator = "," if ":" in name else ":"
    policy = parse_policy(f"{name}{separator}p=0.3")
    found = jax.jit(lambda: apply_policy(policy, KEY, jnp.arange(40, dtype=jnp.int32), images, block=20))()
    changed = np.asarray(abs(found - images).max((1, 2, 3)) > 1e-4).reshape(2, 20)
    assert changed.sum(axis=1).tolist() == [6, 6]


def test_which_policies_need_whole_blocks():
    def needs(policy, mix="none"):
        return Augmentation(parse_policy(policy), parse_mix(mix)).needs_blocks

    assert not needs(DEFAULT)
    assert not needs("affine|hue:p=0.5")
    assert needs("affine:p=0.5")
    assert needs("randaugment")
    assert needs("augmix")
    assert needs("d4", "mixup")


def test_a_range_of_an_operation_that_is_not_random_is_drawn_for_each_image():
    policy = parse_policy("posterize:bits=0..1.99")
    white = jnp.ones((400, 2, 2, 3))
    found = np.asarray(jax.jit(lambda: apply_policy(policy, KEY, jnp.arange(400, dtype=jnp.int32), white))())
    values, counts = np.unique(np.round(found[:, 0, 0, 0] * 255), return_counts=True)
    # The bits are rounded to 0, 1 and 2. 0 and 2 have half a step each.
    assert values.tolist() == [0, 128, 192]
    assert abs(counts / 400 - np.array([0.25, 0.5, 0.25])).max() < 0.1


def test_views_share_all_draws_but_augmix():
    policy = parse_policy("d4|augmix:width=1,depth=1|brightness:delta=0.2")
    images = jnp.asarray(IMAGES)
    views = np.asarray(jax.jit(lambda: apply_views(policy, KEY, SLOTS, images, block=8))())
    assert views.shape == (16, 3, 8, 8, 3)
    without = parse_policy("d4")
    turned = np.asarray(jax.jit(lambda: apply_policy(without, KEY, SLOTS, images))())
    shift = views[:, 0] - turned
    inside = (views[:, 0] > 0) & (views[:, 0] < 1)
    for slot in range(16):
        assert np.ptp(shift[slot][inside[slot]]) < 1e-5, "the first view is turned and brightened, nothing else"
    assert not np.allclose(views[:, 1], views[:, 0], atol=0.01)
    assert not np.allclose(views[:, 1], views[:, 2], atol=0.01)
