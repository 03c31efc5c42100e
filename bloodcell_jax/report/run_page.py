"""The page of a run, `report/index.html` of its workdir: one file that needs no other.

The page shows what the run has written so far. It reads these files of the workdir, if they exist:

- `config.json`.
- `splits.json`: of it `by`, which says by what the data were split.
- `environment.json`: `command`, `started`, `seconds_trained`, `versions` {name: version}, `devices` [text],
  `git_revision`, `steps`, `data` {source, sha256, n, image_size, class_names, splits {split: {count, per_class
  {name: count}}}, notes [text]} and `model` {variant, parameters, trainable {stage: count}}.
- `metrics.jsonl`.
- `report/training_pictures.png`: images as training sees them.
- `metrics.json`, `predictions.csv`, `most_wrong.json` and `groups.csv` of every split below `eval/`. `most_wrong.json`
  is a list of {id, label, predicted, confidence, probability_of_label, png (base64)}.
- `explained_cells.json` and `embedding_map.json` beside them: what `bloodcell_jax.evaluate.explain` found.
- `before.json` beside them: the metrics of the model that the run started from.
"""

import base64
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from bloodcell_jax.config import to_dict
from bloodcell_jax.errors import UsageError
from bloodcell_jax.evaluate.metrics import METRICS
from bloodcell_jax.regular_files import check_regular_file
from bloodcell_jax.report import plots
from bloodcell_jax.report.evaluation_view import evaluation_view, split_to_show
from bloodcell_jax.report.rendering import render, write_page
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import read_json, read_json_if_present
from bloodcell_jax.workdir.records import check_scores

_SPLITS = ("train", "val", "test")


def write_report(workdir: Path) -> Path:
    """Write `workdir/report/index.html` in one step, and return its path.

    If the run has not written a file yet, the page says so in its place.

    Raises:
      UsageError: there is no such folder.
      DataError: a file of the workdir does not have the format that this library writes.
      MachineError: the page cannot be written.
    """
    folder = Workdir(workdir)
    if not os.path.isdir(folder.path):
        raise UsageError(f"{folder}: no such folder; give the --workdir of a run")
    config = to_dict(folder.read_config()) if folder.config.exists() else {}
    html = render(
        "run.html",
        name=folder.path.resolve().name,
        config=config,
        environment=folder.read_environment() if folder.environment.exists() else {},
        by=(folder.read_splits_record().get("by") or {}) if folder.splits.exists() else {},
        log=_log_summary(folder.read_metrics(), config),
        training_images=_base64_if_present(folder.preview),
        score_rows=METRICS,
        **_evaluations(folder),
    )
    write_page(folder.report, html)
    return folder.report


def _log_summary(records: Sequence[Mapping], config: Mapping) -> dict | None:
    if not records:
        return None
    stage_starts = [after for before, after in pairwise(records) if before.get("stage") != after.get("stage")]
    boundaries = [record["step"] for record in stage_starts]
    panels = (
        ("Loss", ("train/loss", "val/loss"), True),
        ("Accuracy", ("train/accuracy", "val/accuracy"), False),
        ("Learning rate", ("lr",), True),
        ("Gradient norm", ("norm/gradient",), True),
    )
    figures = []
    for title, fields, log in panels:
        series = {field.split("/")[0]: _column(records, field) for field in fields}
        series = {name: column for name, column in series.items() if column[0]}
        if series:
            svg = plots.curves(series, boundaries=boundaries, log=log)
            figures.append({"title": title, "svg": Markup(svg), "names": list(series)})
    # No image goes through the network in a stage on cached features, so its speed is another quantity.
    cached = {stage["name"] for stage in config.get("stages", ()) if stage.get("cached_views")}
    _, speed = _column([record for record in records if record.get("stage") not in cached], "perf/images_per_second")
    return {
        "last": records[-1],
        "stage_starts": stage_starts,
        "figures": figures,
        "thinned": len(records) > plots.MAX_POINTS,
        "images_per_second": float(np.median(speed)) if speed else None,
    }


def _column(records: Sequence[Mapping], field: str) -> tuple[list, list]:
    points = [(record["step"], record[field]) for record in records if record.get(field) is not None]
    return [step for step, _ in points], [value for _, value in points]


def _evaluations(workdir: Workdir) -> dict[str, Any]:
    """Return the metrics of every split, and the predictions and images of the split that the page is about."""
    evaluations = workdir.evaluations()
    metrics = {split: check_scores(read_json(files.metrics), files.metrics) for split, files in evaluations.items()}
    rank = {split: i for i, split in enumerate(_SPLITS)}
    splits = sorted(metrics, key=lambda split: (rank.get(split, len(rank)), split))
    shown = split_to_show(metrics)
    if shown is None:
        return {"metrics": {}, "shown": None}
    before = read_json_if_present(evaluations[shown].before)
    return {
        "metrics": {split: metrics[split] for split in splits},
        "shown": shown,
        "before": None if before is None else check_scores(before, evaluations[shown].before),
        **evaluation_view(evaluations[shown], metrics[shown]),
    }


def _base64_if_present(path: Path) -> str | None:
    if not path.exists():
        return None
    check_regular_file(path)
    return base64.b64encode(path.read_bytes()).decode()
