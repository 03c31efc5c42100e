"""Find images that are the same: equal to the byte, or turned, mirrored, brightened or compressed again.

Two images are compared by their *detail*. It is the luminance on a grid of half their side, less its own average over
2 x 2 points, limited to twice its root mean square, as a vector of length 1. The subtraction removes a shift in
brightness, and the grid removes what JPEG adds. All round nuclei share a sharp outline; the limit keeps it from
outweighing the texture.

The dot product of two such vectors is their correlation. The textures of two different cells are nearly independent,
however alike the cells are in size and color. The texture of one image survives the changes above. The 8 flips and
rotations are tried, and the best counts.

Not all pairs are compared in 8 orientations. `_invariants` gives vectors that do not depend on the orientation, and
their dot product is never below the best correlation. One matrix product of them leaves one pair in thousands to be
compared.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# The fine detail's grid has at most so many points along one side: half the side of a 96-pixel image, so that a point
# averages 2 x 2 pixels. Larger images gain nothing from more points.
_LARGEST_GRID = 48

# Two images are the same if their correlation is at least 1 - slack. A smaller grid holds fewer independent values, so
# that different cells come closer; the slack shrinks with the grid: 0.25 at 48 points, 0.06 at 16. docs/audit.md shows
# the distributions that this threshold separates. At 48 points, no two different ones of 13,663 real cells reach 0.70,
# and an image that was shifted by 40 of 255, turned and compressed at quality 50 keeps 0.91.
_SLACK_PER_POINT, _POINTS_WITHOUT_SLACK = 1 / 168, 6

# Coarse detail lies on 16 points and lacks their average over 4 x 4. It survives a shift by a pixel (0.96 or more),
# which fine detail does not, and it is alike in cells of one shape. Images that are not the same but reach this
# correlation are reported as similar.
_COARSE_GRID, _COARSE_WINDOW, _SIMILAR = 16, 4, 0.95

# Detail is limited to this many times its root mean square. Without a limit, round dark nuclei reached 0.82.
_LIMIT = 2.0

# Root mean square in gray levels. An image with less detail is blank and its detail is noise, so that its correlations
# mean nothing: only its bytes are compared. The least detail among 1,519 real cells is 5.
_LEAST_DETAIL = 1.0

# Rows that are compared with all others at a time, and images that are averaged at a time.
_ROWS_PER_CHUNK, _IMAGES_PER_CHUNK = 1024, 64


class SimilarPair(NamedTuple):
    """Two images that are alike but not the same: example indices and the correlation of their coarse detail."""

    first: int
    second: int
    correlation: float


class Duplicates(NamedTuple):
    """The result of comparing all images with each other.

    Attributes:
      groups: int32 [n], the lowest index that shows the same image; an image that occurs once has its own index.
      similar: pairs of different images that are alike, the most alike first.
    """

    groups: np.ndarray
    similar: list[SimilarPair]


def duplicate_groups(images: np.ndarray) -> np.ndarray:
    """Return, for each image, the lowest index that shows the same image.

    Images are the same if they are equal, or if one was made from the other by any of these changes or all of them: the
    8 flips and rotations, a brightness shift (up to 0.2 of the range; less if it clips), and compression again (JPEG
    of quality 30 or more for 96-pixel images).

    Args:
      images: uint8 [n, h, w, 3], h = w.

    Returns:
      int32 [n]; equal numbers are one group.
    """
    return find_duplicates(images).groups


def exact_groups(images: np.ndarray) -> np.ndarray:
    """Return, for each image of uint8 [n, h, w, 3], the lowest index that is equal to it to the byte, int32 [n]."""
    first: dict[bytes, int] = {}
    digests = (hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images)
    return np.array([first.setdefault(digest, i) for i, digest in enumerate(digests)], np.int32)


def find_duplicates(images: np.ndarray) -> Duplicates:
    """Group images of uint8 [n, h, w, 3] as `duplicate_groups` does, and find the pairs that are merely alike."""
    exact = exact_groups(images)
    distinct = np.unique(exact)
    distinct_images = images[distinct] if len(distinct) < len(images) else images
    group = _group(distinct_images)
    groups = np.arange(len(images), dtype=np.int32)
    groups[distinct] = distinct[group]
    first = np.unique(group)
    similar = [
        SimilarPair(int(distinct[first[one]]), int(distinct[first[other]]), correlation)
        for one, other, correlation in _similar(distinct_images[first])
    ]
    return Duplicates(groups[exact], similar)


def _group(images: np.ndarray) -> np.ndarray:
    """Return, for each image, the lowest row that shows the same image, directly or through others."""
    points = min(_LARGEST_GRID, max(2, images.shape[1] // 4 * 2))
    slack = max(1, points - _POINTS_WITHOUT_SLACK) * _SLACK_PER_POINT
    group = np.arange(len(images))
    for row, others, _ in _matches(_details(images, points, window=2), 1 - slack, group):
        for other in others:
            low, high = sorted((group[row], group[other]))
            group[group == high] = low
    return group


def _similar(images: np.ndarray) -> list[tuple[int, int, float]]:
    """Return the pairs of rows that are alike in coarse detail and their correlation, the most alike first."""
    if images.shape[1] < _COARSE_GRID:
        return []
    details = _details(images, _COARSE_GRID, window=_COARSE_WINDOW)
    pairs = [
        (row, int(other), float(correlation))
        for row, others, correlations in _matches(details, _SIMILAR, np.arange(len(images)))
        for other, correlation in zip(others, correlations, strict=True)
    ]
    return sorted(pairs, key=lambda pair: -pair[2])


def _matches(details: np.ndarray, least: float, group: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield each row that correlates by `least` or more with later rows of other groups, those rows, and correlations.

    Rows of one group need no comparison, so the caller may change `group` meanwhile: a thousand altered copies then
    cost a thousand comparisons, not a million.
    """
    for row, candidates in _close_rows(_invariants(details), least):
        candidates = candidates[group[candidates] != group[row]]
        correlations = _best_correlations(details[row], details[candidates])
        close = correlations >= least
        if close.any():
            yield row, candidates[close], correlations[close]


def _details(images: np.ndarray, points: int, window: int) -> np.ndarray:
    """Return the details of images, float32 [n, points, points], each of length 1, or 0 if an image has too little.

    Args:
      images: uint8 [n, h, w, 3], h = w.
      points: points of the grid along one side.
      window: points along one side over which the subtracted average is taken.
    """
    details = np.zeros((len(images), points, points), np.float32)
    average = _averaging(points, images.shape[1])
    for start in range(0, len(images), _IMAGES_PER_CHUNK):
        rows = images[start : start + _IMAGES_PER_CHUNK]
        # Luminance of ITU-R BT.601, as in JPEG: JPEG keeps colors at half the resolution, and less exactly.
        grid = average @ (rows @ np.array([0.299, 0.587, 0.114], np.float32)) @ average.T
        coarse = grid.reshape(-1, points // window, window, points // window, window).mean(axis=(2, 4))
        detail = grid - coarse.repeat(window, axis=1).repeat(window, axis=2)
        spread = np.sqrt((detail**2).mean(axis=(1, 2), keepdims=True))
        detail = detail.clip(-_LIMIT * spread, _LIMIT * spread)
        length = np.linalg.norm(detail, axis=(1, 2), keepdims=True)
        np.divide(detail, length, out=details[start : start + len(rows)], where=spread >= _LEAST_DETAIL)
    return details


def _averaging(points: int, size: int) -> np.ndarray:
    """Return the matrix [points, size] that averages `size` pixels over `points` equal intervals."""
    edges, pixels = np.arange(points + 1) * size / points, np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (overlap.clip(0) * points / size).astype(np.float32)


def _orientations(image: np.ndarray) -> np.ndarray:
    """Return an image [h, h] in its 8 flips and rotations, [8, h, h]."""
    flips = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
    return np.stack([*flips, *(flip.T for flip in flips)])


def _best_correlations(detail: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the correlation [m] of one detail [h, h] with each of the others [m, h, h], in the best orientation."""
    products = _orientations(detail).reshape(8, -1) @ others.reshape(len(others), detail.size).T
    return products.max(axis=0)


def _invariants(details: np.ndarray) -> np.ndarray:
    """Return vectors [n, m] that the 8 flips and rotations keep and that are no farther apart than the details.

    An image is the sum of parts that are even or odd under the two flips. A flip changes the sign of an odd part. A
    transposition swaps the two mixed parts, and changes the sign of the antisymmetric half of the other parts.
    Therefore absolute values do not change, nor does the length of the mixed parts as a pair. None of these operations
    increases a distance, and all lengths stay 1. Hence the dot product of two of these vectors is never below that of
    the details, however they are turned.
    """
    half = details.shape[1] // 2
    top, bottom = details[:, :half], details[:, : half - 1 : -1]
    parts = {}
    for name, rows in (("even", top + bottom), ("odd", top - bottom)):
        left, right = rows[:, :, :half], rows[:, :, : half - 1 : -1]
        parts[name, "even"], parts[name, "odd"] = (left + right) / 2, (left - right) / 2
    mixed = np.hypot(parts["even", "odd"], parts["odd", "even"].swapaxes(1, 2)).reshape(-1, half * half)
    symmetric, antisymmetric = _symmetry(parts["even", "even"])
    return np.concatenate([mixed, symmetric, abs(antisymmetric), *map(abs, _symmetry(parts["odd", "odd"]))], axis=1)


def _symmetry(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the symmetric and the antisymmetric half of matrices [n, m, m], as vectors of the same lengths."""
    rows, columns = np.triu_indices(part.shape[1])
    above, below = part[:, rows, columns], part[:, columns, rows]
    # An entry off the diagonal represents two.
    weights = np.where(rows == columns, 0.5, 0.5**0.5).astype(np.float32)
    return weights * (above + below), weights * (above - below)


def _close_rows(vectors: np.ndarray, least: float) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each row that has later rows with a dot product of at least `least`, and those rows."""
    # Rounding may reduce a product of 1 by this much.
    least -= 1e-5
    for start in range(0, len(vectors), _ROWS_PER_CHUNK):
        products = vectors[start : start + _ROWS_PER_CHUNK] @ vectors[start:].T
        for i, row in enumerate(products):
            later = np.flatnonzero(row[i + 1 :] >= least)
            if len(later):
                yield start + i, start + i + 1 + later
