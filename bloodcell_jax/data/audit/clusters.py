"""Groups of images that are one image, what they are, and what of them a training set should leave out."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bloodcell_jax.data.cleaning import Removal
from bloodcell_jax.data.dataset import Dataset

# So many copies, for each that images of the class usually have, nobody makes by accident: of the 13,663 real cells
# none stands more than twice.
_PLANTED_COPIES = 5
# What is usual in a class is the copies of all but its most copied quarter: a class that was enlarged by copying has
# many of each, and none of them is planted.
_USUAL_QUANTILE = 0.75

PLANTED, CONFLICT, DUPLICATE = "planted", "conflict", "duplicate"


class Cluster(NamedTuple):
    """One image that stands several times.

    Attributes:
      kind: `planted` (far more often than images of its classes do), `conflict` (under several labels) or
        `duplicate`.
      indices: ascending.
      class_counts: class name -> copies under it, classes in label order.
      is_exact: all are equal to the byte.
      splits: those of the source's own splits that hold it.
    """

    kind: str
    indices: list[int]
    class_counts: dict[str, int]
    is_exact: bool
    splits: list[str]


def find_clusters(dataset: Dataset, groups: np.ndarray, exact: np.ndarray) -> list[Cluster]:
    """Return every image that stands several times, planted ones first, the most copied first.

    Args:
      groups: int [n], equal for the same image.
      exact: int [n], equal for equal bytes.
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
    """Return how often an image of each class usually stands in it, [classes]."""
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
    """Return what to leave out, by index.

    Planted images go whole, and so do equal images under several labels; of duplicates under one label all but
    the lowest index.
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
    """Return the highest accuracy on all n examples: of one image under several labels, one can be right."""
    lost = sum(len(cluster.indices) - max(cluster.class_counts.values()) for cluster in clusters)
    return 1 - lost / n
