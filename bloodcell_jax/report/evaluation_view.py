"""What pages show of one evaluated split: its confusion matrix, calibration, worst mistakes and groups."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.confidence import (
    confidence_sentence,
    kept_sentence,
    reliability_bins,
    unknown_sentence,
)
from bloodcell_jax.evaluate.groups import GroupScores, read_groups
from bloodcell_jax.evaluate.predictions_file import read_predictions
from bloodcell_jax.report import plots
from bloodcell_jax.report.explanation_view import explanation_view
from bloodcell_jax.report.robustness_view import robustness_view
from bloodcell_jax.workdir.json_files import read_json_if_present
from bloodcell_jax.workdir.layout import EvaluationFolder
from bloodcell_jax.workdir.records import check_most_wrong

# Groups that a page lists; groups.csv has all of them.
MOST_GROUPS = 40
# Mistakes that a page puts into words; the confusion matrix has all of them.
MOST_PAIRS = 8
_NEUTROPHILS = {"neutrophil", "neutrophils"}
_IMMATURE_GRANULOCYTES = {"ig", "immature granulocyte", "immature granulocytes"}


def split_to_show(splits: Collection[str]) -> str | None:
    """Return the split that tells most of a run: test, else val, else any; None without splits."""
    return next((split for split in ("test", "val", *sorted(splits)) if split in splits), None)


def evaluation_view(folder: EvaluationFolder, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the templates show of a split besides its `metrics.json`; what has no file is None."""
    groups = _read_groups(folder, metrics) if folder.groups.exists() else None
    most_wrong = read_json_if_present(folder.most_wrong)
    return {
        "confusion": _confusion_rows(metrics),
        "confused": confused_pairs(metrics["confusion_matrix"], list(metrics["per_class"])),
        "confidence": _confidence(folder, metrics),
        "most_wrong": None if most_wrong is None else check_most_wrong(most_wrong, folder.most_wrong),
        "groups": _groups(groups, metrics) if groups else None,
        "suites": robustness_view(folder),
        "explained": explanation_view(folder),
    }


def _confusion_rows(metrics: Mapping[str, Any]) -> list[dict]:
    names = list(metrics["per_class"])
    rows = []
    for i, counts in enumerate(metrics["confusion_matrix"]):
        support = max(sum(counts), 1)
        cells = [{"count": n, "share": n / support, "predicted": names[j], "hit": i == j} for j, n in enumerate(counts)]
        rows.append({"name": names[i], "cells": cells, "support": sum(counts)})
    return rows


def confused_pairs(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> list[dict]:
    """Return the mistakes that are made most: `count` of `of` images of `true` were `predicted`.

    Neutrophils and immature granulocytes come first, whichever way: they are stages of one cell, and to tell them apart
    is what a blood count is looked at for.
    """
    pairs = [
        {"true": true, "predicted": predicted, "count": count, "of": sum(row)}
        for true, row in zip(class_names, confusion, strict=True)
        for predicted, count in zip(class_names, row, strict=True)
        if count and true != predicted
    ]
    return sorted(pairs, key=lambda pair: (not _are_granulocytes(pair), -pair["count"]))[:MOST_PAIRS]


def _are_granulocytes(pair: dict) -> bool:
    names = {pair[side].lower().replace("_", " ") for side in ("true", "predicted")}
    return bool(names & _NEUTROPHILS and names & _IMMATURE_GRANULOCYTES)


def _confidence(folder: EvaluationFolder, metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what pages show of confidence; None without predictions."""
    if "risk_coverage" not in metrics:  # Written by an earlier version.
        bins = _bins_of_predictions(folder)
        return None if bins is None else {"bins": bins, "reliability": Markup(plots.reliability_diagram(bins))}
    before = metrics["before_temperature"]["reliability"] if metrics["calibration"] else None
    curve, kept, on = metrics["risk_coverage"], metrics["kept"], metrics.get("split", folder.path.name)
    return {
        "bins": metrics["reliability"],
        "before": before,
        "reliability": Markup(plots.reliability_diagram(metrics["reliability"], before)),
        "kept": Markup(
            plots.kept_answers(
                curve["confidence"], curve["coverage"], curve["error"], kept["confidence"] if kept else None
            )
        ),
        "sentence": confidence_sentence(metrics, "this source" if "class_map" in metrics else on),
        "kept_sentence": kept_sentence(metrics),
        "unknown_sentence": unknown_sentence(metrics),
    }


def _bins_of_predictions(folder: EvaluationFolder) -> dict[str, list] | None:
    rows = read_predictions(folder)
    correct = np.array([row.label == row.predicted for row in rows], bool)
    return reliability_bins(np.array([row.confidence for row in rows]), correct) if rows else None


def _read_groups(folder: EvaluationFolder, metrics: Mapping[str, Any]) -> list[GroupScores]:
    groups, classes = read_groups(folder.groups), len(metrics["per_class"])
    if any(len(group.labeled) != classes for group in groups):
        raise DataError(f"{folder.groups}: does not have {classes} classes, as {folder.metrics}; evaluate again")
    return groups


def _groups(groups: list[GroupScores], metrics: Mapping[str, Any]) -> dict[str, Any]:
    labeled, predicted = (np.array([getattr(group, what) for group in groups]) for what in ("labeled", "predicted"))
    worst = sorted(groups, key=lambda group: group.accuracy)[:MOST_GROUPS]
    return {
        "total": len(groups),
        "shown": [
            {"name": g.name, "n": g.n, "accuracy": g.accuracy, "shares": list(zip(g.labeled, g.predicted, strict=True))}
            for g in worst
        ],
        "differences": np.abs(predicted - labeled).mean(axis=0).tolist(),
        "accuracy_svg": Markup(plots.group_accuracies(np.array([g.accuracy for g in groups]), metrics["accuracy"])),
        "differential_svg": Markup(plots.differential_counts(labeled, predicted)),
    }
