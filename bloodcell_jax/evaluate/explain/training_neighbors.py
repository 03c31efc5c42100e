"""Which training images the network takes for most like an image."""

from typing import NamedTuple

import numpy as np

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.explain.explained_images import GradCamPass
from bloodcell_jax.evaluate.out_of_distribution import squared_distances

# Squared distance between the features of an image as the calibration keeps them and as they come out now. Of 128 cells
# of PBC, those of a pass in bfloat16 and in float32 differed by 2e-5 at most, and the two most alike cells by 3e-3.
_SAME = 1e-3


class TrainingImages(NamedTuple):
    """The images that a run's calibration keeps the features of.

    Attributes:
      dataset: that holds them.
      indices: of these images, in the order of the features.
      features: float16 [m, c], of length 1; see `Reference.features`.
    """

    dataset: Dataset
    indices: np.ndarray
    features: np.ndarray


class Neighbors(NamedTuple):
    """The nearest training images of some images.

    Attributes:
      examples: indices into the dataset, int [n, k], the nearest first.
      distances: between features of length 1, float [n, k]: 0 is equal, and 1.41 has nothing in common.
    """

    examples: np.ndarray
    distances: np.ndarray


def nearest_training_images(
    forward: GradCamPass, pooled: np.ndarray, training: TrainingImages, count: int
) -> Neighbors:
    """Return the `count` training images, or all, whose features are nearest to `pooled` [n, c], scaled to length 1.

    Raises:
      DataError: the images at hand are not those that the features are of.
    """
    dataset, indices, features = training
    if len(indices) != len(features) or pooled.shape[1] != features.shape[1]:
        raise DataError(f"{dataset.source}: does not hold the training images of this model's calibration")
    squared = squared_distances(pooled, features)
    order = np.argsort(squared, axis=1, kind="stable")[:, :count]
    _check_same_images(forward, training, np.unique(order))
    return Neighbors(indices[order], np.sqrt(np.take_along_axis(squared, order, axis=1)))


def _check_same_images(forward: GradCamPass, training: TrainingImages, places: np.ndarray) -> None:
    """Check that the images at some places give the features that are kept of them.

    Raises:
      DataError: one does not; else its picture would stand beside another image's distance.
    """
    dataset, indices, features = training
    batches = forward(dataset.images, indices[places].astype(np.int32), None)
    now = np.concatenate([outputs.pooled for outputs, _ in batches])
    squared = np.diagonal(squared_distances(now, features[places]))
    if squared.max() > _SAME:
        raise DataError(
            f"{dataset.source}: the training images do not give the features that the model's calibration keeps of them"
        )
