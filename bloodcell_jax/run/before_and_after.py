"""What a run gained on the model that it started from: both on the run's held-out split, over the run's classes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.evaluate.evaluator import Evaluator
from bloodcell_jax.evaluate.explain.embedding_map import EmbeddingSample
from bloodcell_jax.evaluate.image_batches import Images
from bloodcell_jax.evaluate.metrics import classification_metrics
from bloodcell_jax.evaluate.out_of_distribution import count_kept
from bloodcell_jax.evaluate.temperature import softmax
from bloodcell_jax.models.registry import build_model
from bloodcell_jax.report.text_table import aligned
from bloodcell_jax.run.run import Run
from bloodcell_jax.weights.loading import rows_by_name
from bloodcell_jax.weights.model_file import read_model_file, record_of_start


def start_of(run: Run) -> Path | None:
    """Return the file of the model that a run started from; None if its predictions cannot be compared.

    They can if this library trained it on images of the same geometry, and if it knows a class of the run.
    """
    if run.config.model.weights is None:
        return None
    start = record_of_start(run.config.model.weights)
    if start is None:
        return None
    path, record = start
    known = rows_by_name(record.config.data.class_names, run.dataset.class_names)
    then, now = record.config.data, run.config.data
    scaled = [data.microns_per_pixel is not None for data in (then, now)]
    alike = (then.image_size, then.crop, scaled[0]) == (now.image_size, now.crop, scaled[1])
    return path if alike and any(row is not None for row in known) else None


def evaluate_start(
    run: Run, images: Images, split: str, path: Path, *, before_batch: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Return the metrics of the model in a file on a split of the run, as a forced choice among the run's classes.

    A class of the run that the model does not know has probability 0, so that each of its images counts as wrong.
    `seen_in_training_at_least` says how many of the images are among those that the model learned from, if any are.

    Args:
      images: all images of the run, as `Evaluator.predict` takes them.
      before_batch: is called before each batch; what it raises ends the pass.
    """
    params, record = read_model_file(path)
    config = record.config
    evaluator = Evaluator(
        build_model(config.model),
        mean=config.model.mean,
        std=config.model.std,
        batch_size=run.config.evaluate.batch_size,
        parallel=run.parallel,
    )
    params = run.parallel.global_view(run.parallel.place_state(params))
    sample = EmbeddingSample(len(run.splits[split]))
    outputs = sample.watch(evaluator.outputs(params, images, run.splits[split], before_batch=before_batch))
    given = np.concatenate([softmax(batch.logits) for batch in outputs])
    kept = 0 if record.calibration is None else count_kept(sample.pooled, record.calibration.reference)
    probabilities = forced_choice(given, config.data.class_names, run.dataset.class_names)
    labels = run.dataset.labels[run.splits[split]]
    seen = {"seen_in_training_at_least": kept} if kept else {}
    return {"step": record.step} | seen | classification_metrics(labels, probabilities, run.dataset.class_names)


def forced_choice(probabilities: np.ndarray, named: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """Return the probabilities [n, wanted classes] of a model of `named` classes that must choose among the wanted."""
    rows = rows_by_name(named, wanted)
    chosen = np.stack([np.zeros(len(probabilities)) if row is None else probabilities[:, row] for row in rows], axis=1)
    return chosen / np.maximum(chosen.sum(axis=1, keepdims=True), np.finfo(float).tiny)


def before_and_after(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return a table of accuracy, macro F1 and the F1 of each class, in percent."""
    rows = [("", "before", "after")]
    for title, key in (("accuracy", "accuracy"), ("macro F1", "f1_macro")):
        rows.append((title, f"{100 * before[key]:.1f}", f"{100 * after[key]:.1f}"))
    for name, scores in after["per_class"].items():
        rows.append((f"F1 of {name}", f"{100 * before['per_class'][name]['f1']:.1f}", f"{100 * scores['f1']:.1f}"))
    return aligned(rows)
