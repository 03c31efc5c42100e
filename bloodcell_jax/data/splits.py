"""Splits: the examples for training (train), for choosing (val), and for the final score (test)."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.dataset import SPLITS, Dataset
from bloodcell_jax.data.group_placement import place_groups
from bloodcell_jax.data.grouping import count_groups, digest_of, group_numbers, joined, some_of
from bloodcell_jax.errors import DataError

# These keys make the draws for each use of one seed independent.
_SPLIT_KEY, _FOLD_KEY = 0x5E11, 0xF01D

# (count, fractions, before) -> how many examples of a class each part should hold, int [parts]. `count` is the size of
# the class, `before` the number of examples of all earlier classes.
_Sizes = Callable[[int, np.ndarray, int], np.ndarray]


def split_dataset(
    dataset: Dataset, fractions: Sequence[float], *, seed: int, groups: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return the ascending example indices of train, val and test, int32; test may be absent.

    The source's own splits are kept. If they lack val, it is cut from their train in the proportion of the first two
    fractions; if they lack test, there is none. A source without splits is cut by all three fractions. Cuts are
    stratified by class and never go through a group of the dataset. They depend only on (labels, groups, fractions,
    seed).

    Args:
      dataset: the examples.
      fractions: of train, val and test; they add up to 1.
      seed: decides the draw.
      groups: int [n]; examples with one number stay together as well, such as duplicates. They are joined with the
        groups of the dataset.

    Raises:
      DataError: a class has too few examples or groups to be cut, or no example in train; or the source has splits, but
        no train.
    """
    splits = {name: np.sort(indices) for name, indices in dataset.splits.items()}
    if splits and "train" not in splits:
        there = ", ".join(f"{name} ({len(indices):,})" for name, indices in splits.items())
        raise DataError(f"{dataset.source}: has {there} and no train; training needs one, `evaluate --source` does not")
    generator = np.random.Generator(np.random.Philox(key=[seed, _SPLIT_KEY]))
    if not splits:
        parts = _cut(dataset, np.arange(len(dataset)), _fraction_sizes, fractions, generator, groups)
        splits = dict(zip(SPLITS, parts, strict=True))
    elif "val" not in splits:
        train_and_val = np.array(fractions[:2]) / sum(fractions[:2])
        cut = _cut(dataset, splits["train"], _fraction_sizes, train_and_val, generator, groups)
        splits["train"], splits["val"] = cut
    for name, count in zip(dataset.class_names, dataset.class_counts(splits["train"]), strict=True):
        if count == 0:
            raise DataError(f"{dataset.source}: class {name} has no image in train; add some there")
    return {name: splits[name].astype(np.int32) for name in SPLITS if len(splits.get(name, ()))}


def cuts_anything(dataset: Dataset, config: DataConfig) -> bool:
    """Return whether a run would cut the source; otherwise it keeps the source's own splits."""
    return "val" not in dataset.splits or config.folds is not None


def k_folds(
    dataset: Dataset, indices: np.ndarray, k: int, *, seed: int, groups: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (train, held out) of k folds over `indices`, ascending int32; each example is held out exactly once.

    The folds are stratified by class and never go through a group of the dataset. They depend only on (labels, groups,
    indices, k, seed).

    Args:
      dataset: the examples.
      indices: int [m], the examples to fold.
      k: number of folds.
      seed: decides the draw.
      groups: int [n]; examples with one number stay together as well, such as duplicates. They are joined with the
        groups of the dataset.

    Raises:
      DataError: a class has fewer than k examples or groups.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, _FOLD_KEY]))
    folds = _cut(dataset, np.sort(indices), _even_sizes, np.full(k, 1 / k), generator, groups)
    return [(np.setdiff1d(indices, fold).astype(np.int32), fold.astype(np.int32)) for fold in folds]


def split_rule(dataset: Dataset, splits: Mapping[str, np.ndarray], config: DataConfig) -> dict:
    """Return by what a dataset was split, which is `by` of `splits.json`.

    Its keys are `given`, the splits of the source that were kept; `duplicates`, whether the cut kept images of the same
    cell together; and `groups`, where the groups come from (`source`, or the regular expression), null without groups.
    With groups: `count`, their number; `per_split`, their number in each split; `crossing`, the number of groups in
    more than one split; and `groups_sha256`, a hash over the group of each example. Of a fold: `folds` and `fold`.

    Args:
      dataset: the examples.
      splits: example indices by split.
      config: what the dataset was read and split with.
    """
    by = {
        "given": [name for name in dataset.splits if config.folds is None or name == "test"],
        "duplicates": config.group_duplicates and cuts_anything(dataset, config),
        "groups": None,
    }
    if config.folds is not None:
        by |= {"folds": config.folds, "fold": config.fold}
    counts = count_groups(dataset, splits)
    if counts is None:
        return by
    return by | {
        "groups": "source" if config.group_regex is None else f"data.group_regex={config.group_regex}",
        "count": counts.count,
        "per_split": counts.per_split,
        "crossing": len(counts.crossing),
        "groups_sha256": digest_of(dataset.groups),
    }


def describe_splits(splits: Mapping[str, np.ndarray], data_hash: str, by: Mapping[str, Any] | None = None) -> dict:
    """Return the content of `splits.json`: the example indices of each split, and by what they were split.

    A hash is over the indices, the data and the groups: those of a run must not change. Files of earlier versions have
    no `by`.

    Args:
      splits: example indices by split.
      data_hash: sha256 of the dataset.
      by: as `split_rule` returns it.
    """
    lists = {name: indices.tolist() for name, indices in splits.items()}
    digest = by.get("groups_sha256") if by else None
    text = json.dumps([data_hash, lists] + [digest] * (digest is not None), separators=(",", ":"))
    content = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "data_sha256": data_hash}
    return content | ({"by": dict(by)} if by else {}) | {"splits": lists}


def _cut(
    dataset: Dataset,
    indices: np.ndarray,
    sizes_of: _Sizes,
    fractions: Sequence[float] | np.ndarray,
    generator: np.random.Generator,
    groups: np.ndarray | None,
) -> list[np.ndarray]:
    """Cut `indices` into parts with the same mix of classes; groups stay whole, and every part gets every class.

    Groups of several examples go first, the largest first. Each goes to the part that it brings closest to what the
    part should hold. Groups of the dataset are few and large, so they are then exchanged as long as that helps. Single
    examples then fill each class exactly, as far as the groups allow.
    """
    together = _together(dataset, groups)
    labels, fractions = dataset.labels[indices], np.asarray(fractions)
    shared, single = _by_size(together[indices], generator)
    counts = dataset.class_counts(indices)
    before = np.cumsum(counts) - counts
    wanted = np.stack([sizes_of(int(n), fractions, int(b)) for n, b in zip(counts, before, strict=True)], 1)
    own = np.zeros((len(shared), wanted.shape[1]), int)
    for number, members in enumerate(shared):
        own[number] = np.bincount(labels[members], minlength=wanted.shape[1])
    # A unit goes to one part as a whole: a single example, or a group, which counts for each of its classes.
    units = np.bincount(labels[single], minlength=wanted.shape[1]) + (own > 0).sum(0)
    _check_enough(dataset, indices, units, max(3, len(fractions)), duplicates=bool(shared))
    # Not for duplicates alone: a run that an earlier version began must keep its splits.
    parts = place_groups(own, wanted, units, exchange=dataset.groups is not None)
    held, part_of = np.zeros_like(wanted), np.empty(len(indices), int)
    np.add.at(held, parts, own)
    for members, part in zip(shared, parts, strict=True):
        part_of[members] = part
    for label in range(wanted.shape[1]):
        members = generator.permutation(single[labels[single] == label])
        part_of[members] = np.repeat(np.arange(len(fractions)), _fill(wanted[:, label], held[:, label], len(members)))
    return [indices[part_of == part] for part in range(len(fractions))]


def _together(dataset: Dataset, groups: np.ndarray | None) -> np.ndarray:
    """Return int [n]: examples with one number must not be separated."""
    if dataset.groups is None:
        return np.arange(len(dataset)) if groups is None else groups
    own = group_numbers(dataset.groups)
    return own if groups is None else joined(own, groups)


def _by_size(groups: np.ndarray, generator: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the members of each group of several, the largest first, and the examples that are alone."""
    order = np.argsort(groups, kind="stable")
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    several = sizes > 1
    shared = [order[start : start + size] for start, size in zip(starts[several], sizes[several], strict=True)]
    shuffled = [shared[i] for i in generator.permutation(len(shared))]
    return sorted(shuffled, key=len, reverse=True), np.sort(order[starts[sizes == 1]])


def _fill(wanted: np.ndarray, held: np.ndarray, count: int) -> np.ndarray:
    """Return how many of `count` single examples of a class each part gets, [parts]."""
    sizes = np.maximum(wanted - held, 0)
    sizes[(held == 0) & (wanted > 0)] = np.maximum(sizes, 1)[(held == 0) & (wanted > 0)]
    while sizes.sum() > count:
        # The largest part gives one up, so that a part that lacks the class keeps its one example.
        sizes[np.argmax(sizes)] -= 1
    return sizes


def _check_enough(dataset: Dataset, indices: np.ndarray, units: np.ndarray, least: int, *, duplicates: bool) -> None:
    """Check that a class of `indices` has `least` units, so that each part gets one."""
    for label, name in enumerate(dataset.class_names):
        count = int(units[label])
        if count >= least:
            continue
        few, remedy = f"has {count} images", "add some"
        if dataset.groups is not None:
            few, remedy = _few_groups(dataset, indices[dataset.labels[indices] == label], count)
        elif duplicates:
            few += " that show different cells"
            remedy += ", or set data.group_duplicates=false to cut through duplicates"
        raise DataError(f"{dataset.source}: class {name} {few}; a split needs at least {least} of each class; {remedy}")


def _few_groups(dataset: Dataset, members: np.ndarray, units: int) -> tuple[str, str]:
    """Return in which groups a class is, and what to do about it; duplicates join them to `units`."""
    groups = sorted({dataset.groups[i] for i in members}) if dataset.groups is not None else []
    few = f"is in {len(groups)} group{'s' * (len(groups) != 1)} ({some_of(groups)})"
    remedy = "add groups, leave the class out, or read the source without groups, which then cross splits"
    if units < len(groups):
        few += f", which images of the same cell join to {units}"
        remedy += "; or leave out duplicates by the clean.json of an audit, or set data.group_duplicates=false"
    return few, remedy


def _fraction_sizes(count: int, fractions: np.ndarray, _before: int) -> np.ndarray:
    """Return how many of `count` examples go to each part; a part with a fraction above 0 gets at least one."""
    sizes = np.floor(fractions * count).astype(int)
    sizes[(fractions > 0) & (sizes == 0)] = 1
    sizes[0] = count - sizes[1:].sum()
    return sizes


def _even_sizes(count: int, fractions: np.ndarray, before: int) -> np.ndarray:
    """Return `count` examples cut evenly; the rest is dealt out from where the rest of earlier classes ended."""
    whole, rest = divmod(count, len(fractions))
    return whole + np.roll(np.arange(len(fractions)) < rest, before).astype(int)
