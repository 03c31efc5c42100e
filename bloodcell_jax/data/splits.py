"""Splits: the examples for training (train), for choosing (val), and for the final score (test)."""

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np

from bloodcell_jax.data.dataset import SPLITS, Dataset
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
    stratified by class and depend only on (labels, groups, fractions, seed).

    Args:
      dataset: the examples.
      fractions: of train, val and test; they add up to 1.
      seed: decides the draw.
      groups: int [n]; examples of one group stay together. None: every example is a group of its own.

    Raises:
      DataError: a class has too few examples or groups to be cut, or no example in train.
    """
    splits = {name: np.sort(indices) for name, indices in dataset.splits.items()}
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


def cuts_anything(dataset: Dataset) -> bool:
    """Return whether `split_dataset` would cut the source; otherwise it keeps the source's own splits."""
    return "val" not in dataset.splits


def k_folds(
    dataset: Dataset, indices: np.ndarray, k: int, *, seed: int, groups: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (train, held out) of k folds over `indices`, ascending int32; each example is held out exactly once.

    The folds are stratified by class and keep groups together. They depend only on (labels, groups, indices, k, seed).

    Args:
      dataset: the examples.
      indices: int [m], the examples to fold.
      k: number of folds.
      seed: decides the draw.
      groups: int [n]; examples of one group stay together. None: every example is a group of its own.

    Raises:
      DataError: a class has fewer than k examples or groups.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, _FOLD_KEY]))
    folds = _cut(dataset, np.sort(indices), _even_sizes, np.full(k, 1 / k), generator, groups)
    return [(np.setdiff1d(indices, fold).astype(np.int32), fold.astype(np.int32)) for fold in folds]


def describe_splits(splits: dict[str, np.ndarray], data_hash: str) -> dict:
    """Return the content of `splits.json`: the example indices of each split, and a hash over them and the data."""
    lists = {name: indices.tolist() for name, indices in splits.items()}
    text = json.dumps([data_hash, lists], separators=(",", ":"))
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "data_sha256": data_hash, "splits": lists}


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
    part should hold. Single examples then fill each class exactly, as far as the groups allow.
    """
    labels, fractions = dataset.labels[indices], np.asarray(fractions)
    shared, single = _by_size(np.arange(len(indices)) if groups is None else groups[indices], generator)
    counts = dataset.class_counts(indices)
    before = np.cumsum(counts) - counts
    wanted = np.stack([sizes_of(int(n), fractions, int(b)) for n, b in zip(counts, before, strict=True)], 1)
    classes_of = [np.bincount(labels[members], minlength=wanted.shape[1]) for members in shared]
    # A unit goes to one part as a whole: a single example, or a group, which counts for each of its classes.
    units = np.bincount(labels[single], minlength=wanted.shape[1])
    for group_counts in classes_of:
        units += group_counts > 0
    _check_enough(dataset, units, len(fractions), shared)
    held, part_of = np.zeros_like(wanted), np.empty(len(indices), int)
    for members, group_counts in zip(shared, classes_of, strict=True):
        part_of[members] = part = _best_part(group_counts, held, wanted, units)
        held[part] += group_counts
        units -= group_counts > 0
    for label in range(wanted.shape[1]):
        members = generator.permutation(single[labels[single] == label])
        part_of[members] = np.repeat(np.arange(len(fractions)), _fill(wanted[:, label], held[:, label], len(members)))
    return [indices[part_of == part] for part in range(len(fractions))]


def _by_size(groups: np.ndarray, generator: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the members of each group of several, the largest first, and the examples that are alone."""
    order = np.argsort(groups, kind="stable")
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    several = sizes > 1
    shared = [order[start : start + size] for start, size in zip(starts[several], sizes[several], strict=True)]
    shuffled = [shared[i] for i in generator.permutation(len(shared))]
    return sorted(shuffled, key=len, reverse=True), np.sort(order[starts[sizes == 1]])


def _best_part(counts: np.ndarray, held: np.ndarray, wanted: np.ndarray, units: np.ndarray) -> int:
    """Return the part that a group goes to.

    This is the part in which the group most reduces the squared relative distance from what is wanted. If a class has
    no more units left than there are parts without it, those parts come first.

    Args:
      counts: [classes], the group's examples of each class.
      held: [parts, classes], the examples that each part holds so far.
      wanted: [parts, classes], the examples that each part should hold.
      units: [classes], the groups and single examples that are left.
    """
    lacks = (held == 0) & (wanted > 0) & (counts > 0)
    must = (lacks & (units <= lacks.sum(0))).any(1)
    scale = np.maximum(wanted, 1)
    gain = ((held - wanted + counts) / scale) ** 2 - ((held - wanted) / scale) ** 2
    # A part that should stay empty takes nothing.
    cost = np.where(wanted.any(1), gain.sum(1), np.inf)
    return int(np.argmin(np.where(must, cost, np.inf) if must.any() else cost))


def _fill(wanted: np.ndarray, held: np.ndarray, count: int) -> np.ndarray:
    """Return how many of `count` single examples of a class each part gets, [parts]."""
    sizes = np.maximum(wanted - held, 0)
    sizes[(held == 0) & (wanted > 0)] = np.maximum(sizes, 1)[(held == 0) & (wanted > 0)]
    while sizes.sum() > count:
        # The largest part gives one up, so that a part that lacks the class keeps its one example.
        sizes[np.argmax(sizes)] -= 1
    return sizes


def _check_enough(dataset: Dataset, units: np.ndarray, parts: int, shared: list[np.ndarray]) -> None:
    least, unit = max(3, parts), "images that show different cells" if shared else "images"
    for name, count in zip(dataset.class_names, units, strict=True):
        if count < least:
            raise DataError(
                f"{dataset.source}: class {name} has {count} {unit}; a split needs at least {least} of each class; "
                + ("add some, or set data.group_duplicates=false to cut through duplicates" if shared else "add some")
            )


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
