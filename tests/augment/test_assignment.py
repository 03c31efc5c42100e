"""Images are assigned to operations: exact shares, exact probabilities, and each operation on its own rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax.augment.assignment import PARTS, Group, apply_groups, assign, assign_share, block_numbers

KEY = jax.random.key(0)


@functools.partial(jax.jit, static_argnums=(2, 3))
def choice_of(key, numbers, block, weights):
    return assign(key, numbers, block, weights).choice


@functools.partial(jax.jit, static_argnums=(2, 3))
def share_of(key, numbers, block, share):
    return assign_share(key, numbers, block, share).choice == 0


def choices(weights, block, blocks, key=KEY):
    return np.asarray(choice_of(key, jnp.arange(blocks), block, weights)).reshape(blocks, block)


@pytest.mark.parametrize(
    ("weights", "block"),
    [
        ((1,) * 14, 32),
        ((1,) * 9, 8),
        ((3, 1, 5), 7),
        ((5,), 4),
    ],
)
def test_in_each_block_an_operation_gets_the_floor_or_ceiling_of_its_share(weights, block):
    drawn = choices(weights, block, blocks=500)
    for operation, weight in enumerate(weights):
        share = block * weight / sum(weights)
        counts = (drawn == operation).sum(axis=1)
        assert set(counts) <= {int(np.floor(share)), int(np.ceil(share))}
        # The choice between the two makes the mean exact. A block deviates by at most 1/2.
        assert abs(counts.mean() - share) < 4 * 0.5 / np.sqrt(500)


def test_every_slot_gets_every_operation_as_often():
    drawn = choices((1,) * 14, 32, blocks=6000)
    frequency = np.stack([(drawn == operation).mean(axis=0) for operation in range(14)])
    # Each of the 448 frequencies has standard deviation 0.0033.
    assert abs(frequency - 1 / 14).max() < 5 * 0.0033
    pairs = (drawn[:, :, None] == drawn[:, None, :]).mean(0)[~np.eye(32, dtype=bool)]
    # Two slots of a block are nearly independent. They get the same operation slightly less often, since it is shared.
    assert abs(pairs.mean() - 1 / 14) < 0.03


def test_the_rule_is_that_of_the_design():
    drawn = assign(KEY, jnp.arange(2), 32, (1,) * 14)
    for order, offset, choice in zip(drawn.order, drawn.offset, drawn.choice.reshape(2, 32), strict=True):
        assert sorted(np.asarray(order)) == list(range(32))
        for rank, slot in enumerate(np.asarray(order)):
            assert choice[slot] == (rank * 14 + int(offset)) // 32 % 14


def test_a_block_s_choice_depends_on_its_number_alone():
    weights, numbers = (1,) * 5, block_numbers(jnp.arange(96, dtype=jnp.int32), 16)
    np.testing.assert_array_equal(numbers, range(6))
    whole = choice_of(KEY, numbers, 16, weights)
    for start in range(0, 6, 2):
        part = choice_of(KEY, numbers[start : start + 2], 16, weights)
        np.testing.assert_array_equal(part, whole[start * 16 : (start + 2) * 16])
    assert not np.array_equal(whole[:16], whole[16:32])
    assert not np.array_equal(choice_of(jax.random.key(1), numbers, 16, weights), whole)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3333, 0.5, 1.0])
def test_a_share_is_exact(share):
    taken = np.asarray(share_of(KEY, jnp.arange(200), 32, share)).reshape(200, 32).sum(axis=1)
    assert taken.min() >= np.floor(share * 32)
    assert taken.max() <= np.ceil(share * 32)
    assert abs(taken.mean() - share * 32) < 4 * 0.5 / np.sqrt(200) + 32 / PARTS


def test_each_operation_sees_its_own_rows_and_all_others_stay():
    blocks, block, weights = 6, 16, (1, 1, 1, 1, 2)
    slots = jnp.arange(blocks * block, dtype=jnp.int32)
    images = jnp.arange(blocks * block, dtype=jnp.float32)[:, None, None, None] * jnp.ones((1, 2, 2, 3))
    assignment = assign(KEY, jnp.arange(blocks), block, weights)
    rows_seen = []

    def group(first, last):
        def apply(images, slots):
            rows_seen.append(len(slots))
            np.testing.assert_array_equal(images[:, 0, 0, 0], slots)
            return images + 1000 * (first + 1)

        return Group(first, last, apply)

    found = apply_groups(assignment, [group(0, 0), group(1, 3)], images, slots)[:, 0, 0, 0]
    choice = np.asarray(assignment.choice)
    added = np.select([choice == 0, choice <= 3], [1000, 2000], 0)
    np.testing.assert_array_equal(found, np.arange(len(slots)) + added)
    # If 16 slots have 6 parts, one part is at most 3 rows of a block and three parts are at most 8 rows.
    assert rows_seen == [blocks * 3, blocks * 8]


def test_fourteen_operations_on_blocks_of_32_cost_42_rows():
    assignment = assign(KEY, jnp.arange(1), 32, (1,) * 14)
    assert sum(assignment.most(operation, operation) for operation in range(14)) == 42
    assert assignment.most(0, 13) == 32
