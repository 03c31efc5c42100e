"""Splits are stratified, disjoint and complete, and depend only on labels, groups, fractions and seed."""

from dataclasses import replace

import numpy as np
import pytest

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.launch_cache import cached_duplicate_groups
from bloodcell_jax.data.splits import describe_splits, k_folds, split_dataset
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


def test_there_is_no_test_split_if_its_fraction_is_0():
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


def test_a_source_with_splits_but_no_train_is_refused():
    data = dataset(splits={"test": np.arange(10)})
    with pytest.raises(DataError, match=r"test \(10\) and no train"):
        split_dataset(data, FRACTIONS, seed=0)


def test_too_few_of_a_class_are_named():
    with pytest.raises(DataError, match=r"class c has 2 images; .*\b3 of each class"):
        split_dataset(dataset((10, 10, 2)), FRACTIONS, seed=0)
    labels = np.array([0, 0, 1, 1], np.int32)
    given = {"train": np.array([0, 1]), "val": np.array([2, 3])}
    data = Dataset(np.zeros((4, 2, 2, 3), np.uint8), labels, ("a", "b"), ("",) * 4, "npz:x", given)
    with pytest.raises(DataError, match=r"class b .*\bin train\b"):
        split_dataset(data, FRACTIONS, seed=0)


def random_groups(data, seed, conflicts=0):
    """Return groups of 1 to 9 examples of one class each, and some pairs across classes."""
    rng = np.random.default_rng(seed)
    groups = np.arange(len(data))
    for label in range(len(data.class_names)):
        members = rng.permutation(np.flatnonzero(data.labels == label))
        # Half of the examples stay single: enough for any cut.
        members = members[: len(members) // 2]
        while len(members) > 1:
            size = rng.integers(1, 10)
            groups[members[:size]] = members[0]
            members = members[size:]
    for _ in range(conflicts):
        one, other = rng.choice(len(data), 2, replace=False)
        groups[groups == groups[other]] = groups[one]
    return groups


@pytest.mark.parametrize("seed", range(20))
def test_groups_stay_whole_and_classes_are_still_cut_alike(seed):
    data = dataset((400, 90, 30, 60))
    groups = random_groups(data, seed, conflicts=3)
    splits = split_dataset(data, FRACTIONS, seed=seed, groups=groups)
    part_of = np.empty(580, int)
    for part, indices in enumerate(splits.values()):
        part_of[indices] = part
    assert sorted(np.concatenate(list(splits.values()))) == list(range(580))
    for group in np.unique(groups):
        assert len(set(part_of[groups == group])) == 1
    shares = np.stack([data.class_counts(indices) for indices in splits.values()]) / data.class_counts()
    np.testing.assert_allclose(shares, np.tile(np.array(FRACTIONS)[:, None], 4), atol=0.1)
    again = split_dataset(data, FRACTIONS, seed=seed, groups=groups)
    assert all(np.array_equal(again[name], indices) for name, indices in splits.items())


def test_groups_are_kept_only_for_the_same_data(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOODCELL_JAX_DATA", str(tmp_path))
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    images[7] = images[2][::-1]
    data = replace(dataset((6, 6)), images=images)
    found = cached_duplicate_groups(data, data.sha256())
    assert found.tolist() == [0, 1, 2, 3, 4, 5, 6, 2, 8, 9, 10, 11]
    (kept,) = (tmp_path / "duplicates").iterdir()
    # A change to the file shows, so the file is what is read.
    np.save(kept, found[::-1])
    assert cached_duplicate_groups(data, data.sha256()).tolist() == found[::-1].tolist()
    kept.write_bytes(b"broken")
    assert cached_duplicate_groups(data, data.sha256()).tolist() == found.tolist()
    other = replace(data, images=images[::-1])
    assert cached_duplicate_groups(other, other.sha256()).tolist() != found.tolist()


def test_groups_of_one_change_nothing():
    one, other = (split_dataset(dataset(), FRACTIONS, seed=0, groups=g) for g in (None, np.arange(160) * 7))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_planted_multitude_goes_to_train_whole():
    data = dataset((2000, 1000))
    planted = np.random.default_rng(0).permutation(3000)[:800]
    groups = np.arange(3000)
    groups[planted] = planted.min()
    splits = split_dataset(data, FRACTIONS, seed=0, groups=groups)
    assert set(planted) <= set(splits["train"])
    assert {name: len(indices) for name, indices in splits.items()} == {"train": 2100, "val": 450, "test": 450}


def test_every_part_gets_some_of_a_class_that_is_all_duplicates():
    data = dataset((50, 12))
    groups = np.arange(62)
    for number, members in enumerate(np.split(np.flatnonzero(data.labels == 1), 3)):
        groups[members] = 1000 + number
    splits = split_dataset(data, FRACTIONS, seed=0, groups=groups)
    assert [data.class_counts(indices)[1] for indices in splits.values()] == [4, 4, 4]
    groups[data.labels == 1] = 1000
    with pytest.raises(DataError, match=r"class b has 1 images .*different cells; .*\b3 of each class"):
        split_dataset(data, FRACTIONS, seed=0, groups=groups)


def test_a_val_cut_from_train_keeps_groups_whole_too():
    data = dataset((100, 60), splits={"train": np.arange(120), "test": np.arange(120, 160)})
    groups = np.arange(160) // 2 * 2
    splits = split_dataset(data, FRACTIONS, seed=0, groups=groups)
    assert not set(groups[splits["train"]]) & set(groups[splits["val"]])
    assert splits["test"].tolist() == list(range(120, 160))


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("grouped", [False, True])
def test_folds_hold_each_example_out_once_with_all_classes_alike(k, grouped):
    data = dataset((101, 43, 17, 60))
    indices = np.setdiff1d(np.arange(221), [3, 50, 220])
    groups = random_groups(data, 0) if grouped else None
    folds = k_folds(data, indices, k, seed=4, groups=groups)
    assert sorted(np.concatenate([held for _, held in folds])) == indices.tolist()
    for train, held in folds:
        assert sorted([*train, *held]) == indices.tolist()
        assert train.dtype == held.dtype == np.int32
        np.testing.assert_allclose(data.class_counts(held), data.class_counts(indices) / k, atol=4 if grouped else 1)
        if grouped:
            assert not set(groups[train]) & set(groups[held])
    assert max(len(held) for _, held in folds) - min(len(held) for _, held in folds) <= (8 if grouped else 1)
    again = k_folds(data, indices, k, seed=4, groups=groups)
    other = k_folds(data, indices, k, seed=5, groups=groups)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(folds, again, strict=True))
    assert not all(np.array_equal(a[1], b[1]) for a, b in zip(folds, other, strict=True))


def test_more_folds_than_images_of_a_class_are_refused():
    with pytest.raises(DataError, match=r"class c has 3 images; .*\b5 of each class"):
        k_folds(dataset(), np.arange(160), 5, seed=0)


def test_the_hash_follows_splits_and_data():
    splits = split_dataset(dataset(), FRACTIONS, seed=0)
    content = describe_splits(splits, "d")
    assert {name: np.array(indices).tolist() for name, indices in splits.items()} == content["splits"]
    others = [describe_splits(splits, "e"), describe_splits(split_dataset(dataset(), FRACTIONS, seed=1), "d")]
    assert len({content["sha256"], *(other["sha256"] for other in others)}) == 3
    assert describe_splits(split_dataset(dataset(), FRACTIONS, seed=0), "d") == content
