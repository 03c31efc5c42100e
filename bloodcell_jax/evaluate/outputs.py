"""What an evaluated split leaves: `metrics.json`, `predictions.csv` and `most_wrong.json`."""

import base64
import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.evaluate.metrics import Scores, classification_metrics
from bloodcell_jax.workdir.files import write_json, writing
from bloodcell_jax.workdir.layout import EvaluationFolder

GALLERY_SIZE = 24


def write_split(
    folder: EvaluationFolder, dataset: Dataset, indices: np.ndarray, probabilities: np.ndarray, *, step: int
) -> Scores:
    """Write the files of one evaluated split and return its metrics; `metrics.json` comes last.

    Args:
      indices: the split's examples.
      probabilities: [len(indices), classes].
      step: step of the checkpoint that made them.

    Raises:
      MachineError: a file cannot be written.
    """
    labels = dataset.labels[indices]
    metrics = {"step": step} | classification_metrics(labels, probabilities, dataset.class_names)
    with writing(folder.predictions):
        folder.path.mkdir(parents=True, exist_ok=True)
        _write_predictions(folder.predictions, dataset, indices, probabilities)
    write_json(folder.most_wrong, _most_wrong(dataset, indices, probabilities))
    write_json(folder.metrics, metrics)
    return metrics


def _write_predictions(path: Path, dataset: Dataset, indices: np.ndarray, probabilities: np.ndarray) -> None:
    class_names, predicted = dataset.class_names, probabilities.argmax(axis=1)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "label", "predicted", "confidence", *class_names])
        for index, guess, row in zip(indices, predicted, probabilities, strict=True):
            values = [f"{p:.6f}" for p in row]
            label = class_names[dataset.labels[index]]
            writer.writerow([dataset.ids[int(index)], label, class_names[guess], values[guess], *values])


def _most_wrong(dataset: Dataset, indices: np.ndarray, probabilities: np.ndarray) -> list[dict]:
    """Return the wrong predictions made with most confidence, their images as base64 PNG, worst first."""
    labels, predicted = dataset.labels[indices], probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    entries = []
    for i in wrong[np.argsort(-confidence[wrong], kind="stable")][:GALLERY_SIZE]:
        png = io.BytesIO()
        Image.fromarray(dataset.images[indices[i]]).save(png, "png")
        entries.append(
            {
                "id": dataset.ids[int(indices[i])],
                "label": dataset.class_names[labels[i]],
                "predicted": dataset.class_names[predicted[i]],
                "confidence": float(confidence[i]),
                "probability_of_label": float(probabilities[i, labels[i]]),
                "png": base64.b64encode(png.getvalue()).decode(),
            }
        )
    return entries
