"""A map of a split in two dimensions: images that the network sees alike lie near each other."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from bloodcell_jax.errors import UsageError
from bloodcell_jax.evaluate.evaluator import Outputs
from bloodcell_jax.evaluate.out_of_distribution import unit_length
from bloodcell_jax.extras import check_extra

# Images on a map: more points hide each other, and the coordinates of so many take a second.
MOST_POINTS = 2_000
METHODS = ("pca", "umap")
# This key makes the draw independent of others by the same seed.
_POINTS_KEY = 0x3A9
# Digits of a coordinate that are kept: a map is 1,000 units wide at most.
_DIGITS = 5


class EmbeddingSample:
    """Keeps what the head takes of at most `MOST_POINTS` images, drawn at random, while a pass goes over all.

    Attributes:
      places: places of the kept images in the pass, int [m], ascending.
    """

    def __init__(self, count: int):
        generator = np.random.Generator(np.random.Philox(key=[count, _POINTS_KEY]))
        self.places = np.sort(generator.permutation(count)[:MOST_POINTS])
        self._kept: list[np.ndarray] = []

    def watch(self, batches: Iterable[Outputs]) -> Iterator[Outputs]:
        """Yield the batches of a pass, in order, and keep what is wanted of each."""
        start = 0
        for outputs in batches:
            stop = start + len(outputs.pooled)
            inside = self.places[(self.places >= start) & (self.places < stop)]
            self._kept.append(outputs.pooled[inside - start])
            start = stop
            yield outputs

    @property
    def pooled(self) -> np.ndarray:
        """The kept rows, float32 [m, c]."""
        return np.concatenate(self._kept)


def check_method(method: str) -> None:
    """Check that a map can be drawn by a method, before anything is computed for it.

    Raises:
      UsageError: it is unknown, or its package is not installed.
    """
    if method not in METHODS:
        raise UsageError(f"--embedding_map={method}: must be one of {', '.join(METHODS)}")
    if method == "umap":
        otherwise = "leave the flag unset for pca"
        check_extra("--embedding_map=umap", "umap", "umap", package="umap-learn", otherwise=otherwise)


def embedding_map(pooled: np.ndarray, method: str = "pca") -> dict[str, Any]:
    """Return the coordinates of images on a map, from what the head takes scaled to length 1.

    Args:
      pooled: [n, c].
      method: `pca`, or `umap` (L. McInnes, J. Healy and J. Melville, arXiv:1802.03426).

    Returns:
      `method`, `x` and `y` of each image, and `shares`: of the variance that x and y hold; None: the method has none.

    Raises:
      UsageError: as `check_method`.
    """
    check_method(method)
    features = unit_length(pooled.astype(np.float32))
    coordinates, shares = principal_components(features) if method == "pca" else (_umap(features), None)
    x, y = ([float(f"{value:.{_DIGITS}g}") for value in axis] for axis in coordinates.T)
    return {"method": method, "shares": None if shares is None else shares.tolist(), "x": x, "y": y}


def principal_components(features: np.ndarray, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of rows [n, c] along their first principal axes, and the share of variance of each.

    The largest weight of each axis is positive, so that the map of a model is not mirrored from machine to machine.

    Returns:
      float [n, count] and [count]; an axis that the rows do not have is 0.
    """
    centered = features - features.mean(axis=0)
    left, lengths, axes = np.linalg.svd(centered, full_matrices=False)
    found = min(count, len(lengths))
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1))[:, 0]
    coordinates, shares = np.zeros((len(features), count), features.dtype), np.zeros(count)
    coordinates[:, :found] = (left * lengths * signs)[:, :found]
    variances = lengths.astype(np.float64) ** 2
    shares[:found] = variances[:found] / max(variances.sum(), np.finfo(np.float64).tiny)
    return coordinates, shares


def _umap(features: np.ndarray) -> np.ndarray:
    """Return coordinates [n, 2], the same for the same features: one thread and a fixed seed."""
    import umap  # pyright: ignore[reportMissingImports] - an extra

    neighbors = min(15, len(features) - 1)
    if neighbors < 2:
        return principal_components(features)[0]
    # Its spectral start needs more points than it has dimensions to choose from.
    start = "spectral" if len(features) > 50 else "random"
    return umap.UMAP(n_neighbors=neighbors, init=start, random_state=0, n_jobs=1).fit_transform(features)
