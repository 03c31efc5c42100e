"""Splits are stratified, disjoint, complete and a function of labels, fractions and seed."""

import numpy as np
import pytest

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.splits import split_dataset
from bloodcell_jax.errors import DataError

COUNTS = (100, 40, 3, 17)
FRACTIONS = (0.7, 0.15, 0.15)


def dataset(counts=COUNTS, splits=None):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
    n = len(labels)
    return Dataset(
        np.zeros((n, 2, 2, 3), np.uint8), labels, tuple("abcd"[: len(counts)]), ("",) * n, "npz:x", splits or {}
    )


def test_every_class_is_cut_alike():
    data = dataset()
    splits = split_dataset(data, FRACTIONS, seed=0)
    assert list(splits) == ["train", "val", "test"]
    assert {name: data.class_counts(indices).tolist() for name, indices in splits.items()} == {
        "train": [70, 28, 1, 13],
        "val": [15, 6, 1, 2],
        "test": [15, 6, 1, 2],
    }
    together = np.concatenate(list(splits.values()))
    assert sorted(together) == list(range(160))
    for indices in splits.values():
        assert indices.dtype == np.int32
        assert (np.diff(indices) > 0).all()


def test_the_seed_decides():
    one, same, other = (split_dataset(dataset(), FRACTIONS, seed=seed)["val"] for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_no_test_where_none_is_asked_for():
    splits = split_dataset(dataset(), (0.8, 0.2, 0.0), seed=0)
    assert list(splits) == ["train", "val"]
    assert len(splits["val"]) == 20 + 8 + 1 + 3


def test_the_source_s_own_splits_are_kept():
    given = {"train": np.arange(100), "val": np.arange(100, 160)}
    splits = split_dataset(dataset(splits=given), FRACTIONS, seed=0)
    assert {name: indices.tolist() for name, indices in splits.items()} == {
        "train": list(range(100)),
        "val": list(range(100, 160)),
    }


def test_a_missing_val_is_cut_from_train_and_test_is_left_alone():
    given = {"train": np.arange(120), "test": np.arange(120, 160)}
    splits = split_dataset(dataset((100, 60), splits=given), FRACTIONS, seed=0)
    assert splits["test"].tolist() == list(range(120, 160))
    assert sorted([*splits["train"], *splits["val"]]) == list(range(120))
    assert abs(len(splits["val"]) / 120 - 0.15 / 0.85) < 0.02


def test_too_few_of_a_class_are_named():
    with pytest.raises(DataError, match="class c has 2 pictures; a split needs at least 3"):
        split_dataset(dataset((10, 10, 2)), FRACTIONS, seed=0)
    labels = np.array([0, 0, 1, 1], np.int32)
    given = {"train": np.array([0, 1]), "val": np.array([2, 3])}
    data = Dataset(np.zeros((4, 2, 2, 3), np.uint8), labels, ("a", "b"), ("",) * 4, "npz:x", given)
    with pytest.raises(DataError, match="class b has no picture in train"):
        split_dataset(data, FRACTIONS, seed=0)
