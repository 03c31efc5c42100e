"""Where in an image the network finds its answer: Grad-CAM and occlusion of images, from passes through the network."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bloodcell_jax.data.stored_images import StoredImages
from bloodcell_jax.errors import UsageError
from bloodcell_jax.evaluate.evaluator import Outputs
from bloodcell_jax.evaluate.explain.occlusion import PATCHES, occlude, occlusion_map
from bloodcell_jax.evaluate.image_batches import Images

# A pass over images that also says where each speaks for a class: (images, indices, classes or None) -> batches, see
# `Evaluator.outputs_and_grad_cam`.
GradCamPass = Callable[[Images, np.ndarray, np.ndarray | None], Iterator[tuple[Outputs, np.ndarray]]]


class ExplainedImages(NamedTuple):
    """What images say for a class, position by position.

    Attributes:
      logits: of the whole images, float32 [n, classes].
      pooled: what the head takes of the whole images, float32 [n, c].
      classes: the class that is explained, int [n].
      grad_cam: what each position of the last map adds to its logit, float32 [n, h, w]; see `grad_cam`.
      occlusion: by how many nats its log probability falls when a cell of the image is covered, float64
        [n, GRID, GRID]; see `occlusion_map`.
    """

    logits: np.ndarray
    pooled: np.ndarray
    classes: np.ndarray
    grad_cam: np.ndarray
    occlusion: np.ndarray


def explain_images(
    forward: GradCamPass,
    images: np.ndarray | StoredImages,
    indices: np.ndarray,
    classes: np.ndarray | None = None,
    *,
    batch_size: int,
) -> ExplainedImages:
    """Explain the answers to the images at `indices`.

    Args:
      forward: passes through the network.
      images: uint8 [N, h, w, 3].
      indices: int [n], of at least one.
      classes: the class to explain of each, int [n]; None: the predicted one.
      batch_size: images of a pass; so many covered ones are in memory at a time.
    """
    step = max(1, batch_size // (1 + PATCHES))
    parts = []
    for start in range(0, len(indices), step):
        rows = slice(start, start + step)
        parts.append(_explain_part(forward, images[indices[rows]], None if classes is None else classes[rows]))
    return ExplainedImages(*map(np.concatenate, zip(*parts, strict=True)))


def _explain_part(forward: GradCamPass, images: np.ndarray, classes: np.ndarray | None) -> ExplainedImages:
    """Explain images [n, h, w, 3] by one pass over each of them and its covered ones."""
    count, variants = len(images), 1 + PATCHES
    every = np.concatenate([part for image in images for part in (image[None], occlude(image))])
    wanted = None if classes is None else np.repeat(classes, variants)
    batches, maps = zip(*forward(every, np.arange(len(every), dtype=np.int32), wanted), strict=True)
    logits = np.concatenate([batch.logits for batch in batches])
    whole = slice(None, None, variants)
    chosen = logits[whole].argmax(axis=1) if classes is None else classes
    log_probabilities = log_probability(logits, np.repeat(chosen, variants)).reshape(count, variants)
    return ExplainedImages(
        logits=logits[whole],
        pooled=np.concatenate([batch.pooled for batch in batches])[whole],
        classes=chosen,
        grad_cam=np.concatenate(maps)[whole],
        occlusion=occlusion_map(log_probabilities[:, 0], log_probabilities[:, 1:]),
    )


def log_probability(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the log of the probability of a class [n] that logits [n, k] give at temperature 1, float64 [n]."""
    wide = logits.astype(np.float64)
    return np.take_along_axis(wide, classes[:, None], axis=1)[:, 0] - np.logaddexp.reduce(wide, axis=1)


def labels_of(names: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
    """Return the labels of classes by their names.

    Raises:
      UsageError: the model has no such class.
    """
    if unknown := set(names) - set(class_names):
        raise UsageError(f"explain: {min(unknown)} is no class of the model, which has {', '.join(class_names)}")
    return np.array([class_names.index(name) for name in names])
