"""Which images are the same image: to the byte, or turned, mirrored, made brighter or compressed again.

Two images are compared by their *detail*: the luminance on a grid of half their side, less its own average over
2 x 2 points, limited to twice its root mean square, as a vector of length 1. The subtraction takes a brightness shift
out, the grid what JPEG adds, and the limit keeps a nucleus's sharp outline, which round nuclei share, from outweighing
the texture. The dot product of two such vectors is their correlation. The texture of two different cells is all but
independent, however alike they are in size and color, while that of one image survives being changed. The 8 flips
and rotations are tried, and the best counts.

Comparing all pairs in 8 orientations is spared by vectors that do not depend on the orientation and whose dot product
is never below the best correlation (`_invariants`): one matrix product leaves one pair in thousands to be compared.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Points of the fine detail's grid along one side, at most: half the side of a 96-pixel image, so that a point
# averages 2 x 2 pixels; larger images gain nothing from more.
_LARGEST_GRID = 48

# From a correlation of 1 - slack on, two images are the same. A smaller grid holds fewer independent values, so that
# different cells come closer, and the slack shrinks with it: 0.25 at 48 points, 0.06 at 16. docs/audit.md has the
# distributions that this line parts: at 48 points, no two different ones of 13,663 real cells reach 0.70, and what was
# shifted by 40 of 255, turned and compressed at quality 50 keeps 0.91.
_SLACK_PER_POINT, _POINTS_WITHOUT_SLACK = 1 / 168, 6

# Coarse detail, on 16 points less averages over 4 x 4, outlasts a shift by a pixel (0.96 or more), which fine detail
# does not, and is alike in cells of one shape. From this correlation on, what is not the same is told as similar.
_COARSE_GRID, _COARSE_BLOCK, _SIMILAR = 16, 4, 0.95

# Detail is limited to this many times its root mean square. Without a limit, round dark nuclei reached 0.82.
_LIMIT = 2.0

# Gray levels. Less detail than this, root mean square, is noise of a blank image, whose correlations mean nothing:
# only its bytes are compared. Of 1,519 real cells the least has 5.
_LEAST_DETAIL = 1.0

# Compared with all others, and averaged, at a time.
_ROWS_PER_BLOCK, _IMAGES_PER_BLOCK = 1024, 64


class SimilarPair(NamedTuple):
    """Two images that are alike but not the same: example indices and the correlation of their coarse detail."""

    first: int
    second: int
    correlation: float


class Duplicates(NamedTuple):
    """What comparing all images with each other finds.

    Attributes:
      groups: int32 [n], the lowest index that shows the same image; its own for an image that stands once.
      similar: pairs of different images that are alike, the most alike first.
    """

    groups: np.ndarray
    similar: list[SimilarPair]


def duplicate_groups(images: np.ndarray) -> np.ndarray:
    """Return, for each image, the lowest index that shows the same image.

    The same is what is equal, or becomes equal by any of the 8 flips and rotations, a brightness shift (0.2 of the
    range, or where it clips less), compression again (JPEG from quality 30 of 96-pixel images) or all of them.

    Args:
      images: uint8 [n, h, w, 3], h = w.

    Returns:
      int32 [n]; equal numbers are one group.
    """
    return find_duplicates(images).groups


def exact_groups(images: np.ndarray) -> np.ndarray:
    """Return, for each image of uint8 [n, h, w, 3], the lowest index that is equal to the byte, int32 [n]."""
    first: dict[bytes, int] = {}
    digests = (hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest() for image in images)
    return np.array([first.setdefault(digest, i) for i, digest in enumerate(digests)], np.int32)


def find_duplicates(images: np.ndarray) -> Duplicates:
    """Group unique_images of uint8 [n, h, w, 3] as `duplicate_groups` does, and tell which others are alike."""
    exact = exact_groups(images)
    distinct = np.unique(exact)
    unique_images = images[distinct] if len(distinct) < len(images) else images
    group = _group(unique_images)
    groups = np.arange(len(images), dtype=np.int32)
    groups[distinct] = distinct[group]
    first = np.unique(group)
    similar = [
        SimilarPair(int(distinct[first[one]]), int(distinct[first[other]]), correlation)
        for one, other, correlation in _similar(unique_images[first])
    ]
    return Duplicates(groups[exact], similar)


def _group(images: np.ndarray) -> np.ndarray:
    """Return the lowest row that each image is the same as, directly or through others."""
    points = min(_LARGEST_GRID, max(2, images.shape[1] // 4 * 2))
    slack = max(1, points - _POINTS_WITHOUT_SLACK) * _SLACK_PER_POINT
    group = np.arange(len(images))
    for row, others, _ in _matches(_details(images, points, block=2), 1 - slack, group):
        for other in others:
            low, high = sorted((group[row], group[other]))
            group[group == high] = low
    return group


def _similar(images: np.ndarray) -> list[tuple[int, int, float]]:
    """Return the pairs of rows that are alike in coarse detail, and how much, the most alike first."""
    if images.shape[1] < _COARSE_GRID:
        return []
    details = _details(images, _COARSE_GRID, block=_COARSE_BLOCK)
    pairs = [
        (row, int(other), float(correlation))
        for row, others, correlations in _matches(details, _SIMILAR, np.arange(len(images)))
        for other, correlation in zip(others, correlations, strict=True)
    ]
    return sorted(pairs, key=lambda pair: -pair[2])


def _matches(details: np.ndarray, least: float, group: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield each row that correlates by `least` or more with later rows of other groups, those rows, and how much.

    What is known to be the same needs no comparison, so `group` may change meanwhile: a thousand altered copies cost
    a thousand comparisons, not a million.
    """
    for row, candidates in _close_rows(_invariants(details), least):
        candidates = candidates[group[candidates] != group[row]]
        correlations = _best_correlations(details[row], details[candidates])
        close = correlations >= least
        if close.any():
            yield row, candidates[close], correlations[close]


def _details(images: np.ndarray, points: int, block: int) -> np.ndarray:
    """Return the details of images, float32 [n, points, points], each of length 1, or 0 where it has too little.

    Args:
      points: of the grid, along one side.
      block: points, along one side, over which the average that is taken off is made.
    """
    details = np.zeros((len(images), points, points), np.float32)
    average = _averaging(points, images.shape[1])
    for start in range(0, len(images), _IMAGES_PER_BLOCK):
        rows = images[start : start + _IMAGES_PER_BLOCK]
        # The luminance of ITU-R BT.601, which is JPEG's: color is kept at half the resolution, and less exactly.
        grid = average @ (rows @ np.float32([0.299, 0.587, 0.114])) @ average.T
        coarse = grid.reshape(-1, points // block, block, points // block, block).mean(axis=(2, 4))
        detail = grid - coarse.repeat(block, axis=1).repeat(block, axis=2)
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
    """Return the correlation of one detail with each of others [m, h, h], in the best of 8 orientations, [m]."""
    products = _orientations(detail).reshape(8, -1) @ others.reshape(len(others), detail.size).T
    return products.max(axis=0)


def _invariants(details: np.ndarray) -> np.ndarray:
    """Return vectors [n, m] that the 8 flips and rotations leave alone and that lie no farther apart than the details.

    An image is the sum of parts that are even or odd under the two flips. A flip changes the sign of an odd part; a
    transposition swaps the two mixed parts, and the sign of what is antisymmetric in the others. So absolute values,
    and the length of the mixed parts as a pair, do not change. None of these increases a distance, and all lengths
    stay 1: hence a dot product of two of these vectors is never below that of the details, however they are turned.
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
    """Return the symmetric and the antisymmetric half of matrices [n, m, m] as vectors that keep their lengths."""
    rows, columns = np.triu_indices(part.shape[1])
    above, below = part[:, rows, columns], part[:, columns, rows]
    # Off the diagonal an entry stands for two.
    weights = np.where(rows == columns, 0.5, 0.5**0.5).astype(np.float32)
    return weights * (above + below), weights * (above - below)


def _close_rows(vectors: np.ndarray, least: float) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each row that has later rows whose dot product with it is at least `least`, and those rows."""
    # Rounding may take this much from a product of 1.
    least -= 1e-5
    for start in range(0, len(vectors), _ROWS_PER_BLOCK):
        products = vectors[start : start + _ROWS_PER_BLOCK] @ vectors[start:].T
        for i, row in enumerate(products):
            later = np.flatnonzero(row[i + 1 :] >= least)
            if len(later):
                yield start + i, start + i + 1 + later
