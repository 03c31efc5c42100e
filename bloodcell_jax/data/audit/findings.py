"""`audit`: everything that is looked for in a data set, in one report."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bloodcell_jax.data.audit.appearance import describe
from bloodcell_jax.data.audit.clusters import Cluster, accuracy_ceiling, find_clusters, removals
from bloodcell_jax.data.audit.geometry import geometry_warnings, picture_sizes
from bloodcell_jax.data.audit.label_errors import LabelError, find_label_errors, read_predictions
from bloodcell_jax.data.audit.outliers import Outlier, find_outliers
from bloodcell_jax.data.audit.shortcuts import AcquisitionGroup, Telling, acquisition_groups, tellings
from bloodcell_jax.data.cleaning import Removal
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.duplicates import SimilarPair, exact_groups, find_duplicates

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
      dataset: what was audited.
      sha256: its hash.
      clusters: pictures that stand several times.
      similar: pairs that come close to being one picture; reported, never removed.
      outliers: pictures unlike all others, distances above 1, the farthest first; reported, never removed.
      tellings: how well each global statistic tells each class.
      acquisition_groups: pictures that the background's colour sets apart; reported, never removed.
      accuracy_ceiling: the highest accuracy that conflicting labels leave possible on all examples.
      geometry_warnings: where the pictures' sizes suggest another geometry.
      label_errors: the likeliest first; None without predictions.
      removals: what `clean.json` names, by index.
    """

    dataset: Dataset
    sha256: str
    clusters: list[Cluster]
    similar: list[SimilarPair]
    outliers: list[Outlier]
    tellings: list[Telling]
    acquisition_groups: list[AcquisitionGroup]
    accuracy_ceiling: float
    geometry_warnings: list[str]
    label_errors: list[LabelError] | None
    removals: list[Removal]

    @property
    def leaks(self) -> list[Cluster]:
        """Pictures that stand in more than one of the source's own splits."""
        return [cluster for cluster in self.clusters if len(cluster.splits) > 1]

    @property
    def shortcuts(self) -> list[Telling]:
        """Statistics that give a class away and are likely the acquisition's."""
        return [telling for telling in self.tellings if telling.is_shortcut]


def audit(dataset: Dataset, *, crop: int | None = 200, predictions: str | Path | None = None) -> Audit:
    """Look for what in a data set would make a model, or its scores, worse than they look; removes nothing.

    Args:
      dataset: as `load_source` returns it.
      crop: with which it was read, for the warnings about its geometry.
      predictions: a `predictions.csv` of this data set, made out of fold; ranks likely label errors.

    Raises:
      DataError: the predictions are not of this data set.
    """
    label_errors = None if predictions is None else _label_errors(dataset, Path(predictions))
    _log.info("audit: comparing %s pictures with each other", f"{len(dataset):,}")
    duplicates = find_duplicates(dataset.images)
    clusters = find_clusters(dataset, duplicates.groups, exact_groups(dataset.images))
    _log.info("audit: looking for outliers and shortcuts")
    distinct = np.unique(duplicates.groups)
    appearance = describe(dataset.images[distinct])
    statistics, labels = appearance.statistics, dataset.labels[distinct]
    outliers = [Outlier(int(distinct[i]), distance) for i, distance in find_outliers(appearance.features)]
    groups = [
        group._replace(indices=distinct[group.indices])
        for group in acquisition_groups(statistics, labels, len(dataset.class_names))
    ]
    return Audit(
        dataset=dataset,
        sha256=dataset.sha256(),
        clusters=clusters,
        similar=duplicates.similar,
        outliers=outliers,
        tellings=tellings(statistics, labels),
        acquisition_groups=groups,
        accuracy_ceiling=accuracy_ceiling(clusters, len(dataset)),
        geometry_warnings=_geometry(dataset, crop),
        label_errors=label_errors,
        removals=removals(dataset, clusters),
    )


def _label_errors(dataset: Dataset, path: Path) -> list[LabelError]:
    indices, probabilities = read_predictions(path, dataset)
    errors = find_label_errors(dataset.labels[indices], probabilities)
    return [error._replace(index=int(indices[error.index])) for error in errors]


def _geometry(dataset: Dataset, crop: int | None) -> list[str]:
    found = picture_sizes(dataset)
    if found is None:
        return []
    sizes, are_files = found
    return geometry_warnings(sizes, are_files=are_files, image_size=dataset.images.shape[1], crop=crop)
