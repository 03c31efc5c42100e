"""Samplers: how often an epoch shows each example, in an order that depends only on (seed, position)."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from bloodcell_jax.config import power_range
from bloodcell_jax.data.sampling import create_sampler
from bloodcell_jax.errors import UsageError

KINDS = ["natural", "under", "over", "balanced", "power", "groups"]
LABELS = np.repeat(np.arange(3), (50, 20, 8))
# Some examples are not for training.
TRAIN = np.setdiff1d(np.arange(78), [0, 1, 55, 77])
# The groups of the first class have 30, 10, 9 and 1 examples; the one of the second class also has one of the third.
GROUPS = np.repeat([4, 1, 0, 2, 7, 3], (30, 10, 9, 1, 21, 7))


def counts_by_class(indices):
    return np.bincount(LABELS[indices], minlength=3).tolist()


def test_natural_shows_each_example_once_an_epoch():
    sampler = create_sampler("natural", LABELS, TRAIN, seed=0)
    assert sampler.epoch_size == 74
    for epoch in range(3):
        assert sorted(sampler.indices(epoch * 74, (epoch + 1) * 74)) == TRAIN.tolist()
    assert not np.array_equal(sampler.indices(0, 74), sampler.indices(74, 148)), "each epoch has another order"


def test_under_shows_k_of_each_class_and_always_the_same_ones():
    sampler = create_sampler("under", LABELS, TRAIN, seed=0, samples_per_class=5)
    first, second = sampler.indices(0, 15), sampler.indices(15, 30)
    assert counts_by_class(first) == [5, 5, 5]
    assert sorted(first) == sorted(second)
    assert len(set(first)) == 15
    assert set(first) <= set(TRAIN)
    assert create_sampler("under", LABELS, TRAIN, seed=0).epoch_size == 3 * 7, (
        "the default is the size of the smallest class"
    )


def test_over_repeats_each_class_evenly_to_the_largest():
    sampler = create_sampler("over", LABELS, TRAIN, seed=0)
    assert sampler.epoch_size == 3 * 48
    epoch = sampler.indices(0, 144)
    assert counts_by_class(epoch) == [48, 48, 48]
    times = np.bincount(epoch, minlength=78)[TRAIN]
    for label in range(3):
        own = times[LABELS[TRAIN] == label]
        assert own.max() - own.min() <= 1
        assert own.min() >= 1


def test_under_redraws_by_epoch_when_asked():
    sampler = create_sampler("under", LABELS, TRAIN, seed=0, samples_per_class=5, redraw=True)
    epochs = [frozenset(sampler.indices(15 * epoch, 15 * epoch + 15)) for epoch in range(60)]
    assert len(set(epochs)) > 50
    assert all(counts_by_class(np.array(sorted(epoch))) == [5, 5, 5] for epoch in epochs)
    assert set().union(*epochs) == set(TRAIN), "every example is shown at some time"


def test_balanced_shows_all_classes_alike_in_an_epoch_of_the_natural_length():
    sampler = create_sampler("balanced", LABELS, TRAIN, seed=0)
    assert sampler.epoch_size == 74
    epoch = sampler.indices(0, 74)
    assert sorted(counts_by_class(epoch)) == [24, 25, 25]
    assert np.bincount(epoch, minlength=78)[LABELS == 0].max() == 1, (
        "all examples are shown once before any is shown twice"
    )


def test_groups_shows_each_group_equally_often_within_its_class():
    sampler = create_sampler("groups", LABELS, TRAIN, seed=0, groups=GROUPS)
    assert sampler.epoch_size == 74
    shown = np.zeros(78, int)
    for start in range(0, 7400, 74):
        epoch = np.bincount(sampler.indices(start, start + 74), minlength=78)
        assert [epoch[label == LABELS].sum() for label in range(3)] == [48, 19, 7]
        assert [epoch[(LABELS == 0) & (group == GROUPS)].sum() for group in (4, 1, 0, 2)] == [12, 12, 12, 12]
        shown += epoch
    assert set(np.flatnonzero(shown)) == set(TRAIN)
    # An epoch shows 12 of the 28 training examples of the largest group: others in each epoch.
    largest = shown[TRAIN][GROUPS[TRAIN] == 4]
    assert largest.sum() == 1200
    assert 25 < largest.min() <= largest.max() < 65
    assert shown[(GROUPS == 2)].tolist() == [1200]
    third = [shown[(LABELS == 2) & (group == GROUPS)].sum() for group in (7, 3)]
    assert third == pytest.approx([350, 350], abs=50)


def test_groups_needs_groups():
    with pytest.raises(UsageError, match=r"sampler=groups: .*config\.data\.group_regex"):
        create_sampler("groups", LABELS, TRAIN, seed=0)


@pytest.mark.parametrize(
    ("power", "expected"),
    [((1.0, 1.0), [48, 19, 7]), ((0.0, 0.0), [25, 25, 24]), ((0.5, 0.5), [36.63, 23.05, 13.99])],
)
def test_power_shows_classes_in_proportion_to_a_power_of_their_size(power, expected):
    sampler = create_sampler("power", LABELS, TRAIN, seed=0, power=power)
    assert sampler.epoch_size == 74
    np.testing.assert_allclose(counts_by_class(sampler.indices(0, 74)), expected, atol=1)


def test_power_may_change_from_the_first_epoch_to_the_last():
    sampler = replace(create_sampler("power", LABELS, TRAIN, seed=0, power=(1.0, 0.0)), epochs=5)
    by_epoch = [counts_by_class(sampler.indices(74 * epoch, 74 * epoch + 74)) for epoch in range(7)]
    assert by_epoch[0] == [48, 19, 7]
    for epoch, q in enumerate((1, 0.75, 0.5, 0.25, 0, 0, 0)):
        shares = np.array([48, 19, 7]) ** q
        np.testing.assert_allclose(by_epoch[epoch], 74 * shares / shares.sum(), atol=1)


@pytest.mark.parametrize("options", [{}, {"redraw": True}])
@pytest.mark.parametrize("kind", KINDS)
def test_no_order_repeats_across_epochs(kind, options):
    sampler = create_sampler(kind, LABELS, TRAIN, seed=0, groups=GROUPS, **options)
    size = sampler.epoch_size
    orders = {sampler.indices(size * epoch, size * (epoch + 1)).tobytes() for epoch in range(50)}
    assert len(orders) == 50


@pytest.mark.parametrize("kind", KINDS)
def test_the_sequence_may_be_entered_anywhere(kind):
    sampler = create_sampler(kind, LABELS, TRAIN, seed=3, groups=GROUPS)
    sequence = sampler.indices(0, 500)
    assert sequence.dtype == np.int32
    later = pickle.loads(pickle.dumps(create_sampler(kind, LABELS, TRAIN, seed=3, groups=GROUPS)))
    np.testing.assert_array_equal(later.indices(333, 350), sequence[333:350])
    pieces = [later.indices(start, start + 16) for start in range(0, 496, 16)]
    np.testing.assert_array_equal(np.concatenate(pieces), sequence[:496])
    assert not np.array_equal(create_sampler(kind, LABELS, TRAIN, seed=4, groups=GROUPS).indices(0, 500), sequence)


def test_more_examples_than_a_class_has_are_refused():
    with pytest.raises(UsageError, match=r"samples_per_class=8: .*\b7 training examples"):
        create_sampler("under", LABELS, TRAIN, seed=0, samples_per_class=8)


@pytest.mark.parametrize("text", ["half", "", "1..", "..0", "0.5..2", "-1", "nan"])
def test_a_malformed_power_is_refused(text):
    with pytest.raises(UsageError, match="sampler_power="):
        power_range(text)


def test_a_power_is_a_number_or_a_range():
    assert power_range("0.5") == (0.5, 0.5)
    assert power_range("1..0") == (1.0, 0.0)
    assert power_range("0.9..0.25") == (0.9, 0.25)


@pytest.mark.parametrize("kind", ["natural", "over", "balanced", "power"])
def test_few_labels_are_all_that_is_seen(kind):
    samplers = [create_sampler(kind, LABELS, TRAIN, seed=3, samples_per_class=count) for count in (2, 10, 1000)]
    known = [set(np.concatenate(sampler.members).tolist()) for sampler in samplers]
    for sampler, members, most in zip(samplers, known, (2, 10, 1000), strict=True):
        assert counts_by_class(sorted(members)) == [min(count, most) for count in (48, 19, 7)]
        assert counts_by_class(sorted(members)) == sampler.counts.tolist()
        assert set(sampler.indices(0, 3 * sampler.epoch_size).tolist()) <= members
    # Fewer labels are a part of more.
    assert known[0] < known[1] < known[2]
