"""`audit`: all searches in a dataset, and their findings in one object."""

import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bloodcell_jax.data.audit.appearance import describe
from bloodcell_jax.data.audit.clusters import (
    CONFLICT,
    DUPLICATE,
    PLANTED,
    Cluster,
    accuracy_ceiling,
    find_clusters,
    removals,
)
from bloodcell_jax.data.audit.geometry import warnings_of
from bloodcell_jax.data.audit.label_errors import LabelError, Predicted, find_label_errors, read_predictions
from bloodcell_jax.data.audit.outliers import Outlier, find_outliers
from bloodcell_jax.data.audit.shortcuts import AcquisitionGroup, Telling, acquisition_groups, tellings
from bloodcell_jax.data.cleaning import Removal
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.duplicates import SimilarPair, exact_groups, find_duplicates
from bloodcell_jax.data.grouping import count_groups

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Audit:
    """The findings of an audit.

    Attributes:
      dataset: the audited dataset.
      sha256: hash of the dataset.
      clusters: images that occur several times.
      similar: pairs of different images that are alike; reported, never removed.
      outliers: images unlike all others, with distances above 1, the farthest first; reported, never removed.
      tellings: how well each global statistic tells each class.
      acquisition_groups: images that the background's color sets apart; reported, never removed.
      accuracy_ceiling: the highest accuracy on all examples that conflicting labels leave possible.
      geometry_warnings: warnings that the sizes of the images suggest another geometry.
      label_errors: likely label errors, the likeliest first; None without predictions.
      predicted: the predictions in which they were looked for; None without.
      removals: the examples that `clean.json` names, by index.
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
    predicted: Predicted | None
    removals: list[Removal]

    @property
    def verdict(self) -> str:
        """One or two sentences: what to leave out, why, and the accuracy that it costs to keep it."""
        if not self.removals:
            return "Nothing has to be left out: no planted images, no duplicates, no conflicting labels."
        reasons = Counter(removal.reason for removal in self.removals)
        copied = sum(cluster.kind == PLANTED for cluster in self.clusters)
        what = {
            PLANTED: f"copies of {_count(copied, 'planted image')}",
            CONFLICT: "equal images under conflicting labels",
            DUPLICATE: "duplicate" if reasons[DUPLICATE] == 1 else "duplicates",
        }
        parts = [f"{reasons[kind]:,} {words}" for kind, words in what.items() if kind in reasons]
        share = len(self.removals) / len(self.dataset)
        text = f"Leave out {len(self.removals):,} of {len(self.dataset):,} images ({share:.1%}): {', '.join(parts)}."
        if self.accuracy_ceiling < 1:
            text += f" With them, no classifier can be right on more than {self.accuracy_ceiling:.2%}."
        return text

    @property
    def leaks(self) -> list[Cluster]:
        """Images that occur in more than one of the source's own splits."""
        return [cluster for cluster in self.clusters if len(cluster.splits) > 1]

    @property
    def shortcuts(self) -> list[Telling]:
        """Statistics that give a class away and are likely caused by the acquisition."""
        return [telling for telling in self.tellings if telling.is_shortcut]

    @property
    def look_at(self) -> list[str]:
        """Names and numbers of the findings that are never removed, because a person must judge them."""
        found = {
            "outlier": self.outliers,
            "similar pair": self.similar,
            "acquisition group": self.acquisition_groups,
            "shortcut": self.shortcuts,
            "likely label error": self.label_errors,
        }
        return [_count(len(items), name) for name, items in found.items() if items]

    @property
    def warnings(self) -> list[str]:
        """What makes scores on these data doubtful: leaks, groups in several splits, a geometry that may not fit."""
        warnings = []
        if self.leaks:
            stands = "1 image stands" if len(self.leaks) == 1 else f"{len(self.leaks):,} images stand"
            warnings.append(f"{stands} in more than one split: scores on the later ones are too good.")
        groups = count_groups(self.dataset, self.dataset.splits)
        if groups is not None and groups.warning:
            warnings.append(f"{groups.warning}.")
        return [*warnings, *self.geometry_warnings]

    @property
    def summary(self) -> list[str]:
        """The lines that matter most."""
        lines = [self.verdict, *self.warnings]
        if self.predicted is not None:
            lines.append(self.predicted.note(len(self.dataset)))
        return [*lines, f"Look at: {', '.join(self.look_at)}."] if self.look_at else lines

    def to_dict(self) -> dict:
        """Return the content of `audit.json`."""
        dataset, names = self.dataset, self.dataset.class_names
        return {
            "source": dataset.source,
            "sha256": self.sha256,
            "n": len(dataset),
            "image_size": dataset.images.shape[1],
            "class_counts": dict(zip(names, dataset.class_counts().tolist(), strict=True)),
            "splits": {name: len(indices) for name, indices in dataset.splits.items()},
            "verdict": self.verdict,
            "remove": dict(Counter(removal.reason for removal in self.removals)),
            "accuracy_ceiling": self.accuracy_ceiling,
            "clusters": [cluster._asdict() for cluster in self.clusters],
            "leaks": [{"splits": cluster.splits, "indices": cluster.indices} for cluster in self.leaks],
            "similar": [
                {"first": self._example(a), "second": self._example(b), "correlation": correlation}
                for a, b, correlation in self.similar
            ],
            "outliers": [
                self._example(outlier.index)
                | {"label": names[dataset.labels[outlier.index]], "distance": outlier.distance}
                for outlier in self.outliers
            ],
            "acquisition_groups": [
                group._asdict()
                | {
                    "indices": group.indices.tolist(),
                    "class_counts": dict(zip(names, group.class_counts.tolist(), strict=True)),
                }
                for group in self.acquisition_groups
            ],
            "statistics": [
                {
                    "statistic": telling.statistic,
                    "class": names[telling.label],
                    "auc": telling.auc,
                    "is_shortcut": telling.is_shortcut,
                }
                for telling in self.tellings
            ],
            "geometry_warnings": self.geometry_warnings,
            "predictions": self.predicted and self.predicted._asdict(),
            "label_errors": self.label_errors
            and [
                self._example(error.index)
                | {"label": names[error.label], "suggested": names[error.suggested], "margin": error.margin}
                for error in self.label_errors
            ],
        }

    def _example(self, index: int) -> dict:
        return {"index": index, "id": self.dataset.ids[index]}


def audit(dataset: Dataset, *, predictions: str | Path | None = None) -> Audit:
    """Look for what makes a model of a dataset, or its scores, worse than they look; nothing is removed.

    Args:
      dataset: as `load_source` returns it.
      predictions: a `predictions.csv` of this dataset, made out of fold; likely label errors are then ranked.

    Raises:
      DataError: the predictions are not of this dataset.
    """
    dataset = dataset.in_memory()
    images = dataset.image_array()
    predicted, label_errors = (None, None) if predictions is None else _label_errors(dataset, Path(predictions))
    _log.info("audit: comparing %s images with each other", f"{len(dataset):,}")
    duplicates = find_duplicates(images)
    clusters = find_clusters(dataset, duplicates.groups, exact_groups(images))
    _log.info("audit: looking for outliers and shortcuts")
    distinct = np.unique(duplicates.groups)
    appearance = describe(images[distinct])
    statistics, labels = appearance.statistics, dataset.labels[distinct]
    outliers = [
        Outlier(int(distinct[outlier.index]), outlier.distance) for outlier in find_outliers(appearance.features)
    ]
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
        geometry_warnings=warnings_of(dataset),
        label_errors=label_errors,
        predicted=predicted,
        removals=removals(dataset, clusters),
    )


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"


def _label_errors(dataset: Dataset, path: Path) -> tuple[Predicted, list[LabelError]]:
    indices, probabilities = read_predictions(path, dataset)
    labels = dataset.labels[indices]
    predicted = Predicted(len(indices), float((probabilities.argmax(axis=1) == labels).mean()))
    errors = find_label_errors(labels, probabilities)
    return predicted, [replace(error, index=int(indices[error.index])) for error in errors]
