"""The page of one evaluation, `index.html` beside its `metrics.json`: one file that needs no other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.evaluate.metrics import METRICS, Predictions, Scores, forced_choice
from bloodcell_jax.evaluate.predictions_file import probabilities_of, read_predictions
from bloodcell_jax.names import names_by_cell
from bloodcell_jax.report.evaluation_view import evaluation_view, split_to_show
from bloodcell_jax.report.model_view import file_view, run_view
from bloodcell_jax.report.rendering import render, write_page
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import read_json
from bloodcell_jax.workdir.layout import EvaluationFolder
from bloodcell_jax.workdir.records import check_evaluation, check_scores


def write_evaluation_page(folder: EvaluationFolder, model: Workdir | Path) -> Path:
    """Write the page of an evaluated split from its files, and return its path.

    Args:
      folder: the files that the verb `evaluate` wrote.
      model: what was evaluated: a run, whose own scores stand beside those of another source; or the file of a model.

    Raises:
      DataError: a file does not have the format that this library writes.
      MachineError: the page cannot be written.
    """
    metrics = check_evaluation(read_json(folder.metrics), folder.metrics)
    elsewhere = "class_map" in metrics
    on = _short(metrics["source"]) if elsewhere else metrics["split"]
    home_name, home = _home(model) if isinstance(model, Workdir) and elsewhere else ("", None)
    own = check_scores(read_json(home.metrics), home.metrics) if home else None
    html = render(
        "evaluation.html",
        model=run_view(model) if isinstance(model, Workdir) else file_view(model),
        class_names=list(metrics["per_class"]),
        main=metrics,
        elsewhere=elsewhere,
        on=on,
        score_rows=METRICS,
        columns={f"{home_name}, own data": own, on: metrics} if own else {on: metrics},
        home=own,
        home_name=home_name,
        forced=_forced_columns(metrics, on, home, home_name),
        **evaluation_view(folder, metrics),
    )
    write_page(folder.page, html)
    return folder.page


def _short(source: str) -> str:
    kind, colon, place = source.partition(":")
    return Path(place if colon else kind).name or source


def _home(workdir: Workdir) -> tuple[str, EvaluationFolder | None]:
    """Return the split that tells most of the run itself, and its files."""
    evaluations = workdir.evaluations()
    split = split_to_show(evaluations)
    return (split, evaluations[split]) if split else ("", None)


def _forced_columns(
    metrics: Mapping[str, Any], on: str, home: EvaluationFolder | None, home_name: str
) -> dict[str, Scores]:
    """Return the scores of the forced choice, beside those of the run's own images of the same classes."""
    forced = metrics.get("forced_choice")
    if forced is None or len(metrics["present_classes"]) == len(metrics["per_class"]):
        return {}
    own = _forced_at_home(home, metrics["present_classes"], list(metrics["per_class"])) if home else None
    return ({f"{home_name}, own data": own} if own else {}) | {on: forced}


def _forced_at_home(home: EvaluationFolder, present: list[str], class_names: list[str]) -> Scores | None:
    """Return the scores of the run's own images of the classes `present`, when the model chooses among these alone."""
    class_of = names_by_cell(class_names)
    rows = [row for row in read_predictions(home) if class_of.get(row.label) in present]
    whole = all(len(row.probabilities) == len(class_names) for row in rows)
    if not whole or {class_of[row.label] for row in rows} != set(present):
        return None
    labels = np.array([class_names.index(class_of[row.label]) for row in rows])
    predictions = forced_choice(Predictions(labels, probabilities_of(rows)))
    return {"n": len(rows)} | {metric.key: metric.compute(predictions) for metric in METRICS}
