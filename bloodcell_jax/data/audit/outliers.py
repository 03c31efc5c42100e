"""Outliers: images unlike all others, which are not cells or are cells out of place."""

from dataclasses import dataclass

import numpy as np

# The distance to this neighbor counts, so that a few altered copies of a planted image are not its neighborhood.
_NEIGHBOR = 5
# Directions in which images vary by less than this many gray levels hold only noise.
_LEAST_SPREAD = 1.0
# Fewer distinct images than this do not show what is usual. Each direction needs so many images.
_LEAST_IMAGES, _IMAGES_PER_DIRECTION = 50, 5
# The usual spread is measured by this share of the images, those nearest the middle, because outliers would widen it.
_CENTRAL = 0.9
# The tail of the distances is measured between these two quantiles and extrapolated. If all images were cells, one in a
# thousand would lie beyond the threshold, or two images of a small set: a person looks at them in a minute.
_TAIL, _SHARE_BEYOND, _LEAST_BEYOND = (0.8, 0.95), 0.001, 2.0


@dataclass(frozen=True)
class Outlier:
    """An image far from the others.

    Attributes:
      index: index of the image.
      distance: in multiples of the largest usual distance; above 1.
    """

    index: int
    distance: float


def find_outliers(features: np.ndarray) -> list[Outlier]:
    """Return the images whose distance to their fifth nearest neighbor is larger than the others' distances explain.

    Distances are taken in whitened features. The covariance is that of the nine tenths of the images nearest the
    middle (one concentration step of the minimum covariance determinant, Rousseeuw and Van Driessen 1999). The
    logarithm of such distances has an exponential tail. It is fitted between the 80 % and the 95 % quantile, and one
    image in a thousand is expected beyond the threshold (peaks over a threshold, Pickands 1975).

    Args:
      features: float [n, features] of distinct images: copies of one image would be each other's neighbors.

    Returns:
      Outliers, the farthest first; an index is a row of `features`.
    """
    if len(features) < _LEAST_IMAGES:
        return []
    distances = _neighbor_distances(features)
    threshold = _tail_threshold(distances)
    beyond = np.flatnonzero(distances > threshold)
    order = beyond[np.argsort(-distances[beyond], kind="stable")]
    return [Outlier(int(i), float(np.exp(distances[i] - threshold))) for i in order]


def _neighbor_distances(features: np.ndarray) -> np.ndarray:
    """Return the logarithm of each row's distance to its fifth nearest neighbor, in whitened features, [n]."""
    from sklearn.neighbors import NearestNeighbors

    radius = (_whiten(features, features) ** 2).sum(axis=1)
    whitened = _whiten(features, features[radius <= np.quantile(radius, _CENTRAL)])
    distances, _ = NearestNeighbors(n_neighbors=_NEIGHBOR + 1).fit(whitened).kneighbors(whitened)
    # Distinct images may have equal features; their distance 0 has no logarithm.
    return np.log(distances[:, -1].clip(1e-6))


def _whiten(features: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Return features along the principal axes of the `usual` rows, as multiples of those rows' spread."""
    middle = usual.mean(axis=0)
    _, lengths, axes = np.linalg.svd(usual - middle, full_matrices=False)
    spread = lengths / np.sqrt(len(usual))
    count = min((spread >= _LEAST_SPREAD).sum(), len(usual) // _IMAGES_PER_DIRECTION)
    return (features - middle) @ axes[:count].T / spread[:count]


def _tail_threshold(distances: np.ndarray) -> float:
    low, high = np.quantile(distances, _TAIL)
    share_beyond_low, share_beyond_high = 1 - _TAIL[0], 1 - _TAIL[1]
    slope = (high - low) / np.log(share_beyond_low / share_beyond_high)
    share_beyond = max(_SHARE_BEYOND, _LEAST_BEYOND / len(distances))
    return low + slope * np.log(share_beyond_low / share_beyond)
