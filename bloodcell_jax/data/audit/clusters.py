"""Clusters: one image that occurs several times. What each is, and which copies a training set should leave out."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bloodcell_jax.data.cleaning import Removal
from bloodcell_jax.data.dataset import Dataset

# An image is planted if it has this many times the usual copies of its classes. This is no accident: none of the 13,663
# real cells occurs more than twice.
_PLANTED_COPIES = 5
# The usual copies of a class leave out its most copied quarter. If a class was enlarged by copying, each of its images
# has many copies, and none is planted.
_USUAL_QUANTILE = 0.75

PLANTED, CONFLICT, DUPLICATE = "planted", "conflict", "duplicate"


class Cluster(NamedTuple):
    """One image that occurs several times.

    Attributes:
      kind: `planted` (it occurs far more often than images of its classes usually do), `conflict` (it has several
        labels) or `duplicate`.
      indices: indices of the copies, ascending.
      class_counts: class name -> copies with this label; classes in label order.
      is_exact: all copies are equal to the byte.
      splits: the source's own splits that hold a copy.
    """

    kind: str
    indices: list[int]
    class_counts: dict[str, int]
    is_exact: bool
    splits: list[str]


def find_clusters(dataset: Dataset, groups: np.ndarray, exact: np.ndarray) -> list[Cluster]:
    """Return every image that occurs several times: planted, conflicts, duplicates, and the most copied of each first.

    Args:
      dataset: the examples.
      groups: int [n], equal numbers for the same image.
      exact: int [n], equal numbers for equal bytes.
    """
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    usual = _usual_copies(dataset, groups)
    clusters = [
        _describe(dataset, members, usual, exact) for members in np.split(order, starts[1:]) if len(members) > 1
    ]
    kinds = (PLANTED, CONFLICT, DUPLICATE)
    return sorted(clusters, key=lambda c: (kinds.index(c.kind), -len(c.indices), c.indices))


def _usual_copies(dataset: Dataset, groups: np.ndarray) -> np.ndarray:
    """Return how often an image of each class usually occurs in it, [classes]."""
    usual = np.ones(len(dataset.class_names))
    for label in np.unique(dataset.labels):
        _, copies = np.unique(groups[dataset.labels == label], return_counts=True)
        usual[label] = np.quantile(copies, _USUAL_QUANTILE, method="lower")
    return usual


def _describe(dataset: Dataset, members: np.ndarray, usual: np.ndarray, exact: np.ndarray) -> Cluster:
    labels = Counter(dataset.labels[members].tolist())
    if len(members) >= _PLANTED_COPIES * max(usual[label] for label in labels):
        kind = PLANTED
    else:
        kind = CONFLICT if len(labels) > 1 else DUPLICATE
    return Cluster(
        kind=kind,
        indices=members.tolist(),
        class_counts={dataset.class_names[label]: labels[label] for label in sorted(labels)},
        is_exact=len(set(exact[members].tolist())) == 1,
        splits=[name for name, indices in dataset.splits.items() if np.isin(members, indices).any()],
    )


def removals(dataset: Dataset, clusters: Sequence[Cluster]) -> list[Removal]:
    """Return the examples to leave out, by index.

    All copies of planted images are left out, and all copies of one image with several labels. Of duplicates with one
    label, the lowest index stays.
    """
    removed = []
    for cluster in clusters:
        detail = _detail(dataset, cluster)
        for index in cluster.indices[1 if cluster.kind == DUPLICATE else 0 :]:
            removed.append(Removal(index, dataset.ids[index], cluster.kind, detail))
    return sorted(removed)


def _detail(dataset: Dataset, cluster: Cluster) -> str:
    counts = ", ".join(f"{name}: {count}" for name, count in cluster.class_counts.items())
    if cluster.kind == PLANTED:
        return f"one of {len(cluster.indices)} copies of an image: {counts}"
    same = "equal to" if cluster.is_exact else "the same image as"
    if cluster.kind == DUPLICATE:
        return f"{same} {dataset.ids[cluster.indices[0]]}"
    ids = ", ".join(dataset.ids[index] for index in cluster.indices)
    return f"{'equal' if cluster.is_exact else 'the same image'} under several labels: {counts} ({ids})"


def accuracy_ceiling(clusters: Sequence[Cluster], n: int) -> float:
    """Return the highest possible accuracy on n examples: if one image has several labels, only one can be right."""
    lost = sum(len(cluster.indices) - max(cluster.class_counts.values()) for cluster in clusters)
    return 1 - lost / n
