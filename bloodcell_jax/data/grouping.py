"""Groups of examples that belong together, such as all cells of a patient or of a slide."""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bloodcell_jax.config import group_pattern
from bloodcell_jax.data.class_tree import check_spelling
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.errors import DataError, UsageError

_log = logging.getLogger(__name__)

# So many names are shown; the others are counted.
_NAMES = 3


@dataclass(frozen=True)
class GroupCounts:
    """How the groups of a dataset lie in its splits.

    Attributes:
      count: number of groups.
      smallest, largest: number of examples of the smallest and of the largest group.
      names: their names, in order.
      per_split: number of groups in each split.
      crossing: names of the groups that are in more than one split.
      crossing_examples: number of their examples.
    """

    count: int
    smallest: int
    largest: int
    names: tuple[str, ...]
    per_split: dict[str, int]
    crossing: tuple[str, ...]
    crossing_examples: int

    def __str__(self) -> str:
        sizes = f"{self.smallest:,}" if self.smallest == self.largest else f"{self.smallest:,} to {self.largest:,}"
        return f"groups: {self.count:,} of {sizes} images: {some_of(self.names)}"

    @property
    def warning(self) -> str | None:
        """What is wrong with the splits; None if each group is in one split."""
        if not self.crossing:
            return None
        some = "1 group is" if len(self.crossing) == 1 else f"{len(self.crossing):,} groups are"
        return (
            f"{some} in more than one split ({some_of(self.crossing)}; {self.crossing_examples:,} images), of "
            f"{self.count:,} groups in all: scores on the later splits are too good"
        )


def with_groups(dataset: Dataset, regex: str) -> Dataset:
    """Return the dataset with the groups that a regular expression finds in its ids.

    Args:
      regex: `data.group_regex`; its capture group is searched for in each id.

    Raises:
      UsageError: it is no such expression, or the source names groups itself.
      DataError: an id does not match, or matches in two ways.
    """
    pattern = group_pattern(regex)
    found = [_matches(pattern, name) for name in dataset.ids]
    setting = f"data.group_regex={regex}"
    if dataset.groups is not None:
        theirs, ours = (sorted(names) for names in (set(dataset.groups), set().union(*found)))
        raise UsageError(
            f"{dataset.source}: names {len(theirs):,} groups itself ({some_of(theirs)}), and {setting} finds "
            f"{len(ours):,} in its ids ({some_of(ours)}); unset data.group_regex, or leave out the groups of the source"
        )
    missing = [name for name, groups in zip(dataset.ids, found, strict=True) if not groups]
    if missing:
        raise DataError(
            f"{dataset.source}: {setting} does not match {len(missing):,} of {len(dataset):,} ids "
            f"({some_of(missing)}); change it, or leave these files out by data.exclude"
        )
    unclear = [(name, groups) for name, groups in zip(dataset.ids, found, strict=True) if len(groups) > 1]
    if unclear:
        name, groups = unclear[0]
        raise DataError(
            f"{dataset.source}: {setting} finds more than one group in {len(unclear):,} of {len(dataset):,} ids: "
            f"{' and '.join(groups)} in {name}; say where the group stands, such as ^ for the begin of the path and "
            r"[^/]*$ for the rest of the file name"
        )
    groups = tuple(names[0] for names in found)
    check_spelling(groups, f"groups of {setting}", dataset.source)
    count = len(set(groups))
    if count == len(groups):
        _log.warning("warning: %s gives each image a group of its own, so it keeps nothing together", setting)
    elif count == 1:
        _log.warning("warning: %s gives all images one group, %s, which cannot be split", setting, groups[0])
    return replace(dataset, groups=groups)


def _matches(pattern: re.Pattern, name: str) -> list[str]:
    """Return the different groups that a pattern finds in an id, in their order."""
    which = "group" if "group" in pattern.groupindex else 1
    return list(dict.fromkeys(match[which] for match in pattern.finditer(name) if match[which]))


def count_groups(dataset: Dataset, splits: Mapping[str, np.ndarray]) -> GroupCounts | None:
    """Return how the groups of a dataset lie in splits (example indices by name); None if it has no groups."""
    if dataset.groups is None:
        return None
    names, numbers, sizes = np.unique(np.asarray(dataset.groups), return_inverse=True, return_counts=True)
    inside = np.stack([np.bincount(numbers[i], minlength=len(names)) > 0 for i in splits.values()] or [sizes > 0])
    crossing = inside.sum(0) > 1
    return GroupCounts(
        count=len(names),
        smallest=int(sizes.min()),
        largest=int(sizes.max()),
        names=tuple(names.tolist()),
        per_split=dict(zip(splits, inside.sum(1).tolist(), strict=False)),
        crossing=tuple(names[crossing].tolist()),
        crossing_examples=int(sizes[crossing].sum()),
    )


def digest_of(groups: Sequence[str] | None) -> str | None:
    """Return a hash over the group of each example; None without groups."""
    return None if groups is None else hashlib.sha256("\0".join(groups).encode()).hexdigest()


def group_numbers(groups: Sequence[str]) -> np.ndarray:
    """Return a number for the group of each example, int [n], from 0 in the order of the groups' names."""
    return np.unique(np.asarray(groups), return_inverse=True)[1]


def joined(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Join two groupings, both int [n] from 0: examples that share a group in either of them get the same number.

    So do examples that are connected by others; the numbers, int [n], are those of the connected components.
    """
    numbers, before = np.arange(len(one)), None
    while before is None or (numbers != before).any():
        before = numbers
        for groups in (one, other):
            lowest = np.full(groups.max(initial=0) + 1, len(one))
            np.minimum.at(lowest, groups, numbers)
            numbers = lowest[groups]
    return numbers


def some_of(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - _NAMES:,} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more
