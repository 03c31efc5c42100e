"""What the pages show to explain an evaluated split: its worst mistakes and least certain answers, and a map of it."""

import base64
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.image_files import encode_jpeg
from bloodcell_jax.errors import UserError
from bloodcell_jax.evaluate.explain.agreement import rank_agreement
from bloodcell_jax.evaluate.explain.chosen_cells import cells_to_explain, margins
from bloodcell_jax.evaluate.explain.embedding_map import EmbeddingSample, embedding_map
from bloodcell_jax.evaluate.explain.explained_images import ExplainedImages, GradCamPass, explain_images
from bloodcell_jax.evaluate.explain.training_neighbors import Neighbors, TrainingImages, nearest_training_images
from bloodcell_jax.workdir.explanation_records import MISTAKE, UNCERTAIN

_ANSWERS = 3
_NEIGHBORS = 3
# Digits of a value of a map: a page draws 32 shades of it.
_DIGITS = 5


class Explanations(NamedTuple):
    """What is kept of an evaluated split, as JSON values.

    Attributes:
      cells: the content of `explained_cells.json`.
      embedding: the content of `embedding_map.json`.
    """

    cells: dict[str, Any]
    embedding: dict[str, Any]


def explain_split(
    forward: GradCamPass,
    dataset: Dataset,
    indices: np.ndarray,
    probabilities: np.ndarray,
    sample: EmbeddingSample,
    training: Callable[[], TrainingImages],
    *,
    count: int,
    batch_size: int,
    method: str = "pca",
) -> Explanations:
    """Explain an evaluated split.

    Args:
      forward: passes through the network.
      indices: the split's examples.
      probabilities: of the model, for these, [n, classes].
      sample: has watched the pass that gave them.
      training: returns the images that the model's calibration keeps the features of; an error of it is shown in their
        place.
      count: images that are explained; 0: none.
      batch_size: images of a pass.
      method: of the map, see `embedding_map`.

    Raises:
      UsageError: as `embedding_map`.
    """
    cells = _cells(forward, dataset, indices, probabilities, training, count, batch_size)
    return Explanations(cells, _map(dataset, indices, probabilities, sample, method))


def _map(
    dataset: Dataset, indices: np.ndarray, probabilities: np.ndarray, sample: EmbeddingSample, method: str
) -> dict[str, Any]:
    places = sample.places
    return {
        **embedding_map(sample.pooled, method),
        "of": len(indices),
        "class_names": list(dataset.class_names),
        "label": dataset.labels[indices[places]].tolist(),
        "predicted": probabilities[places].argmax(axis=1).tolist(),
    }


def _cells(
    forward: GradCamPass,
    dataset: Dataset,
    indices: np.ndarray,
    probabilities: np.ndarray,
    training: Callable[[], TrainingImages],
    count: int,
    batch_size: int,
) -> dict[str, Any]:
    mistakes, uncertain = cells_to_explain(dataset.labels[indices], probabilities, count)
    places = np.concatenate([mistakes, uncertain])
    if not len(places):
        return {"cells": [], "without_neighbors": None}
    images = explain_images(forward, dataset.images, indices[places], batch_size=batch_size)
    neighbors, without = _neighbors(forward, images.pooled, training)
    return {
        "cells": [
            {
                "why": MISTAKE if row < len(mistakes) else UNCERTAIN,
                **_cell(dataset, int(indices[place]), probabilities[place], images, row),
                "neighbors": [] if neighbors is None else neighbors[row],
            }
            for row, place in enumerate(places)
        ],
        "without_neighbors": without,
    }


def _neighbors(
    forward: GradCamPass, pooled: np.ndarray, training: Callable[[], TrainingImages]
) -> tuple[list[list[dict[str, Any]]] | None, str | None]:
    """Return the nearest training images of each image, or why there are none."""
    try:
        learned_from = training()
        found = nearest_training_images(forward, pooled, learned_from, _NEIGHBORS)
        return [_shown(learned_from.dataset, found, row) for row in range(len(pooled))], None
    except UserError as error:
        return None, str(error)


def _shown(dataset: Dataset, neighbors: Neighbors, row: int) -> list[dict[str, Any]]:
    return [
        {**_image(dataset, int(example)), "distance": round(float(distance), _DIGITS)}
        for example, distance in zip(neighbors.examples[row], neighbors.distances[row], strict=True)
    ]


def _cell(dataset: Dataset, index: int, probabilities: np.ndarray, images: ExplainedImages, row: int) -> dict[str, Any]:
    answers = np.argsort(-probabilities, kind="stable")[:_ANSWERS]
    return {
        **_image(dataset, index),
        "answers": [{"name": dataset.class_names[k], "probability": float(probabilities[k])} for k in answers],
        "margin": float(margins(probabilities[None])[0]),
        "explained_class": dataset.class_names[images.classes[row]],
        "occlusion": _rounded(images.occlusion[row]),
        "grad_cam": _rounded(images.grad_cam[row]),
        "rank_agreement": rank_agreement(images.grad_cam[row], images.occlusion[row]),
    }


def _image(dataset: Dataset, index: int) -> Mapping[str, Any]:
    return {
        "id": str(dataset.ids[index]),
        "label": dataset.class_names[dataset.labels[index]],
        "jpeg": base64.b64encode(encode_jpeg(dataset.images[index])).decode(),
    }


def _rounded(values: np.ndarray) -> list[list[float]]:
    return [[float(f"{value:.{_DIGITS}g}") for value in line] for line in values]
