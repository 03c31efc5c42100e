"""Images unlike all others: not cells, or cells out of place."""

from typing import NamedTuple

import numpy as np

# A planted image that was altered a few times must not be its own neighborhood.
_NEIGHBOURS = 5
# Directions in which images vary by less than this many gray levels hold noise alone.
_LEAST_SPREAD = 1.0
# Fewer distinct images than this tell nothing about what is usual; and so many are needed for each direction.
_LEAST_IMAGES, _IMAGES_PER_DIRECTION = 50, 5
# The share of images nearest the middle, by which the usual spread is measured: outliers must not widen it.
_CENTRAL = 0.9
# From the first to the second quantile the distances' tail is measured, beyond which it is taken to go on as it does
# there. If all were cells, one in a thousand, or two, would lie beyond the threshold: looked at in a minute.
_TAIL, _SHARE_BEYOND, _LEAST_BEYOND = (0.8, 0.95), 0.001, 2.0


class Outlier(NamedTuple):
    """An image far from the others: its index and how far, in multiples of what is still usual (above 1)."""

    index: int
    distance: float


def find_outliers(features: np.ndarray) -> list[Outlier]:
    """Return the images whose distance to their fifth nearest neighbor is beyond what the others' distances tell.

    Distances are taken in whitened features, the covariance being that of the nine tenths of the images nearest the
    middle (one concentration step of the minimum covariance determinant, Rousseeuw and Van Driessen 1999). The
    logarithm of such distances has an exponential tail, so the threshold is where that of 80 % to 95 % of the images
    leaves one in a thousand beyond it (peaks over a threshold, Pickands 1975).

    Args:
      features: [n, features] of distinct images: copies of one would be each other's neighbors.

    Returns:
      Outliers, indices being rows of `features`, the farthest first.
    """
    if len(features) < _LEAST_IMAGES:
        return []
    distances = _neighbor_distances(features)
    threshold = _tail_threshold(distances)
    beyond = np.flatnonzero(distances > threshold)
    order = beyond[np.argsort(-distances[beyond], kind="stable")]
    return [Outlier(int(i), float(np.exp(distances[i] - threshold))) for i in order]


def _neighbor_distances(features: np.ndarray) -> np.ndarray:
    """Return the logarithm of each row's distance to its fifth nearest neighbor, whitened."""
    from sklearn.neighbors import NearestNeighbors

    radius = (_whiten(features, features) ** 2).sum(axis=1)
    whitened = _whiten(features, features[radius <= np.quantile(radius, _CENTRAL)])
    distances, _ = NearestNeighbors(n_neighbors=_NEIGHBOURS + 1).fit(whitened).kneighbors(whitened)
    # Distinct images may look alike to the last number; their distance 0 has no logarithm.
    return np.log(distances[:, -1].clip(1e-6))


def _whiten(features: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Return features as multiples of their spread among the `usual` rows, along those rows' principal axes."""
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
