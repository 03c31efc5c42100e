"""What an evaluated split leaves: `metrics.json`, `predictions.csv`, `most_wrong.json`.

If the examples have groups, there are also `groups.csv` and `example_groups.csv`; if they were explained,
`explained_cells.json` and `embedding_map.json`.
"""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.image_files import encode_png
from bloodcell_jax.evaluate.answers import Answers
from bloodcell_jax.evaluate.confidence import confidence_scores
from bloodcell_jax.evaluate.explain.chosen_cells import most_confident_mistakes
from bloodcell_jax.evaluate.explain.explained_split import Explanations
from bloodcell_jax.evaluate.groups import score_groups, write_example_groups, write_groups
from bloodcell_jax.evaluate.metrics import Scores, example_scores
from bloodcell_jax.evaluate.predictions_file import write_predictions
from bloodcell_jax.evaluate.slices import Slices, score_slices
from bloodcell_jax.weights.calibration import Calibration
from bloodcell_jax.whole_files import writing
from bloodcell_jax.workdir.json_files import write_json
from bloodcell_jax.workdir.layout import EvaluationFolder

GALLERY_SIZE = 24


def write_split(
    folder: EvaluationFolder,
    dataset: Dataset,
    indices: np.ndarray,
    answers: Answers,
    *,
    step: int,
    calibration: Calibration | None,
    holds_val: bool,
    origin: Mapping[str, Any] | None = None,
    slices: Slices | None = None,
    raw_names: bool = False,
    explanations: Explanations | None = None,
) -> Scores:
    """Write the files of one evaluated split and return its metrics; `metrics.json` comes last.

    Args:
      indices: the split's examples.
      answers: of the model, to these.
      step: step of the checkpoint that made them.
      calibration: of the model; None: it has none.
      holds_val: the examples are some that the calibration was fitted on.
      origin: what else `metrics.json` says of the examples, such as their source.
      slices: what is scored by itself, as `read_slices` returns it of the dataset.
      raw_names: names in the CSVs are exact, even if a spreadsheet would run them as formulas.
      explanations: of the split; None: nobody asked the network for them.

    Raises:
      MachineError: a file cannot be written.
    """
    probabilities = answers.probabilities
    labels, predicted = dataset.labels[indices], probabilities.argmax(axis=1)
    groups = dataset.groups_of(indices)
    metrics = {"step": step} | dict(origin or {})
    metrics |= example_scores(dataset, indices, probabilities)
    if slices:
        of_split = {name: tuple(values[int(i)] for i in indices) for name, values in slices.items()}
        metrics["slices"] = score_slices(of_split, labels, probabilities, dataset.class_names, groups=groups)
    metrics |= confidence_scores(labels, answers, calibration, holds_val=holds_val)
    _delete_earlier(folder)
    old = folder.predictions.read_bytes() if folder.predictions.is_file() else None
    write_predictions(folder.predictions, dataset, indices, probabilities, raw_names=raw_names)
    if folder.predictions.read_bytes() != old:
        _delete_suites(folder)
    if groups is not None:
        scores = score_groups(groups, labels, predicted, len(dataset.class_names))
        write_groups(folder.groups, scores, dataset.class_names, raw_names=raw_names)
        ids = [dataset.ids[int(i)] for i in indices]
        write_example_groups(folder.example_groups, ids, groups, raw_names=raw_names)
    write_json(folder.most_wrong, _most_wrong(dataset, indices, probabilities))
    if explanations is not None:
        write_json(folder.explained_cells, explanations.cells)
        write_json(folder.embedding_map, explanations.embedding)
    write_json(folder.metrics, metrics)
    return metrics


def _delete_earlier(folder: EvaluationFolder) -> None:
    """Create the folder, and delete from it what an earlier evaluation may leave and this one may not write."""
    with writing(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
        of_groups = (folder.groups, folder.example_groups)
        for earlier in (folder.page, *of_groups, *folder.explanations, *folder.medmnist_results()):
            earlier.unlink(missing_ok=True)


def _delete_suites(folder: EvaluationFolder) -> None:
    """Delete scores under corruptions, which are those of another model or split."""
    with writing(folder.path):
        for suite in folder.suites().values():
            suite.unlink()


def summary(scores: Scores) -> str:
    """Return the scores of one split as a line for the command line."""
    absent = [name for name, of_class in scores["per_class"].items() if not of_class["support"]]
    # Metrics of earlier versions do not hold it.
    forced = scores.get("forced_choice")
    if not absent:
        return f"accuracy {scores['accuracy']:.4f}, macro F1 {scores['f1_macro']:.4f}, n {scores['n']}"
    total, among = len(scores["per_class"]), len(scores["per_class"]) - len(absent)
    over = f"over {among} of {total} classes, {len(absent)} without an image ({', '.join(absent)})"
    line = f"accuracy {scores['accuracy']:.4f}, macro F1 {scores['f1_macro']:.4f} {over}, n {scores['n']}"
    if forced:
        line += f"; choosing among the {among} present alone: accuracy {forced['accuracy']:.4f}, "
        line += f"macro F1 {forced['f1_macro']:.4f}"
    return line


def _most_wrong(dataset: Dataset, indices: np.ndarray, probabilities: np.ndarray) -> list[dict]:
    """Return the wrong predictions made with most confidence, their images as base64 PNG, worst first."""
    labels, predicted = dataset.labels[indices], probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    entries = []
    for i in most_confident_mistakes(labels, probabilities)[:GALLERY_SIZE]:
        entries.append(
            {
                "id": dataset.ids[int(indices[i])],
                "label": dataset.class_names[labels[i]],
                "predicted": dataset.class_names[predicted[i]],
                "confidence": float(confidence[i]),
                "probability_of_label": float(probabilities[i, labels[i]]),
                "png": base64.b64encode(encode_png(dataset.images[indices[i]])).decode(),
            }
        )
    return entries
