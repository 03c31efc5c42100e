"""Samplers are index plans: who is shown how often in an epoch, in an order that (seed, position) decides."""

import numpy as np
import pytest

from bloodcell_jax.data.sampling import create_sampler
from bloodcell_jax.errors import UsageError

LABELS = np.repeat(np.arange(3), (50, 20, 8))
# Not every example is for training.
TRAIN = np.setdiff1d(np.arange(78), [0, 1, 55, 77])


def counts_by_class(indices):
    return np.bincount(LABELS[indices], minlength=3).tolist()


def test_natural_shows_each_example_once_an_epoch():
    sampler = create_sampler("natural", LABELS, TRAIN, seed=0)
    assert sampler.epoch_size == 74
    for epoch in range(3):
        assert sorted(sampler.indices(epoch * 74, (epoch + 1) * 74)) == TRAIN.tolist()
    assert not np.array_equal(sampler.indices(0, 74), sampler.indices(74, 148)), "another order in each epoch"


def test_under_shows_k_of_each_class_and_the_same_ones_always():
    sampler = create_sampler("under", LABELS, TRAIN, seed=0, samples_per_class=5)
    first, second = sampler.indices(0, 15), sampler.indices(15, 30)
    assert counts_by_class(first) == [5, 5, 5]
    assert sorted(first) == sorted(second)
    assert len(set(first)) == 15
    assert set(first) <= set(TRAIN)
    assert create_sampler("under", LABELS, TRAIN, seed=0).epoch_size == 3 * 7, "unset: the smallest class"


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


@pytest.mark.parametrize("kind", ["natural", "under", "over"])
def test_the_stream_may_be_entered_anywhere(kind):
    sampler = create_sampler(kind, LABELS, TRAIN, seed=3)
    stream = sampler.indices(0, 500)
    assert stream.dtype == np.int32
    later = create_sampler(kind, LABELS, TRAIN, seed=3)
    np.testing.assert_array_equal(later.indices(333, 350), stream[333:350])
    pieces = [later.indices(start, start + 16) for start in range(0, 496, 16)]
    np.testing.assert_array_equal(np.concatenate(pieces), stream[:496])
    assert not np.array_equal(create_sampler(kind, LABELS, TRAIN, seed=4).indices(0, 500), stream)


def test_more_than_there_are_is_refused():
    with pytest.raises(UsageError, match="samples_per_class=8: the smallest class has 7 training examples"):
        create_sampler("under", LABELS, TRAIN, seed=0, samples_per_class=8)
