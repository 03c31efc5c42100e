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

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bloodcell_jax.errors import UsageError
from bloodcell_jax.evaluate.metrics import METRICS, Scores
from bloodcell_jax.report.evaluation_view import evaluation_view, split_to_show
from bloodcell_jax.report.model_view import run_view
from bloodcell_jax.report.rendering import render, write_page
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import read_json, read_json_if_present
from bloodcell_jax.workdir.layout import STEP
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
    model, evaluations = run_view(folder), _evaluations(folder)
    main = evaluations["metrics"].get(evaluations["on"])
    html = render(
        "run.html",
        model=model,
        class_names=list(main["per_class"]) if main else model["class_names"],
        main=main,
        score_rows=METRICS,
        **evaluations,
    )
    write_page(folder.report, html)
    return folder.report


def _evaluations(workdir: Workdir) -> dict[str, Any]:
    """Return the metrics of every split, and the predictions and images of the split that the page is about."""
    evaluations = workdir.evaluations()
    metrics = {split: check_scores(read_json(files.metrics), files.metrics) for split, files in evaluations.items()}
    rank = {split: i for i, split in enumerate(_SPLITS)}
    splits = sorted(metrics, key=lambda split: (rank.get(split, len(rank)), split))
    shown = split_to_show(metrics)
    if shown is None:
        return {"metrics": {}, "on": None}
    before = read_json_if_present(evaluations[shown].before)
    return {
        "metrics": {_column_name(split, metrics, shown): metrics[split] for split in splits},
        "on": shown,
        "before": None if before is None else check_scores(before, evaluations[shown].before),
        **evaluation_view(evaluations[shown], metrics[shown]),
    }


def _column_name(split: str, metrics: Mapping[str, Scores], shown: str) -> str:
    """Return the name of a split; with its step if another checkpoint than that of the page was scored."""
    step = metrics[split].get("step")
    return split if step == metrics[shown].get("step") or split.endswith(f"{STEP}{step}") else f"{split} (step {step})"
