"""Which pictures are the same picture: to the byte, or turned, mirrored, made brighter or compressed again.

Two pictures are compared by their *detail*: the luminance on a grid of half their side, less its own average over
2 x 2 points, as a vector of length 1. The subtraction takes a brightness shift out, the grid what JPEG adds, and the
dot product of two such vectors is their correlation. The fine texture of two different cells is all but independent,
however alike they are in size and colour, while that of one picture survives being changed. The 8 flips and
rotations are tried, and the best counts.

Comparing all pairs in 8 orientations is spared by vectors that do not depend on the orientation and whose dot product
is never below the best correlation (`_invariants`): one matrix product leaves one pair in thousands to be compared.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Points of the detail's grid along one side, at most. Half the side of a 96-pixel picture, so that a point averages
# 2 x 2 pixels; larger pictures gain nothing from more.
_LARGEST_GRID = 48

# From a correlation of 1 - slack on, two pictures are the same. A smaller grid holds fewer independent values, so that
# different cells come closer: the slack shrinks with it, by this much for each point above 4.
_SLACK_PER_POINT = 1 / 220

# Pairs within this many times the slack are told, as similar: below it only chance is left.
_SIMILAR_FACTOR = 1.25

# Grey levels. Less detail than this, root mean square, is noise of a blank picture, whose correlations mean nothing:
# only its bytes are compared. Of 1,519 real cells the least has 5.
_LEAST_DETAIL = 1.0

_ROWS_PER_BLOCK = 1024


class SimilarPair(NamedTuple):
    """Two pictures that are nearly, but not surely, the same: example indices and their details' correlation."""

    first: int
    second: int
    correlation: float


class Duplicates(NamedTuple):
    """What comparing all pictures with each other finds.

    Attributes:
      groups: int32 [n], the lowest index that shows the same picture; its own for a picture that stands once.
      similar: pairs that come close to being the same and are not, most alike first.
    """

    groups: np.ndarray
    similar: list[SimilarPair]


def duplicate_groups(images: np.ndarray) -> np.ndarray:
    """Return, for each picture, the lowest index that shows the same picture.

    The same is what is equal, or becomes equal by any of the 8 flips and rotations, a brightness shift (0.2 of the
    range, or where it clips less), compression again (JPEG from quality 30 of 96-pixel pictures) or all of them.

    Args:
      images: uint8 [n, h, w, 3], h = w.

    Returns:
      int32 [n]; equal numbers are one group.
    """
    return find_duplicates(images).groups


def exact_groups(images: np.ndarray) -> np.ndarray:
    """Return, for each picture of uint8 [n, h, w, 3], the lowest index that is equal to the byte, int32 [n]."""
    first: dict[bytes, int] = {}
    digests = (hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest() for image in images)
    return np.array([first.setdefault(digest, i) for i, digest in enumerate(digests)], np.int32)


def find_duplicates(images: np.ndarray) -> Duplicates:
    """Group pictures of uint8 [n, h, w, 3] as `duplicate_groups` does, and tell which others come close."""
    exact = exact_groups(images)
    distinct = np.unique(exact)
    details = _details(images[distinct] if len(distinct) < len(images) else images)
    has_detail = np.flatnonzero(details.any(axis=(1, 2)))
    group, similar = _compare(details[has_detail])
    rows = distinct[has_detail]
    groups = np.arange(len(images), dtype=np.int32)
    groups[rows] = rows[group]
    pairs = [SimilarPair(int(rows[a]), int(rows[b]), correlation) for a, b, correlation in similar]
    return Duplicates(groups[exact], sorted(pairs, key=lambda pair: -pair.correlation))


def _compare(details: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, float]]]:
    """Return the group of each picture, the lowest row in it, and the pairs of rows that are similar alone."""
    slack = max(1, details.shape[1] - 4) * _SLACK_PER_POINT
    same, similar = 1 - slack, 1 - _SIMILAR_FACTOR * slack
    group, pairs = np.arange(len(details)), []
    for row, candidates in _close_rows(_invariants(details), similar):
        # What is known to be the same needs no comparison: a thousand copies cost a thousand of them, not a million.
        candidates = candidates[group[candidates] != group[row]]
        correlations = _best_correlations(details[row], details[candidates])
        for other, correlation in zip(candidates, correlations, strict=True):
            if correlation >= same:
                low, high = sorted((group[row], group[other]))
                group[group == high] = low
            elif correlation >= similar:
                pairs.append((row, other, float(correlation)))
    return group, [pair for pair in pairs if group[pair[0]] != group[pair[1]]]


def _details(images: np.ndarray) -> np.ndarray:
    """Return the details of pictures, float32 [n, points, points], each of length 1, or 0 where it has too little."""
    points = min(_LARGEST_GRID, max(2, images.shape[1] // 4 * 2))
    details = np.zeros((len(images), points, points), np.float32)
    average = _averaging(points, images.shape[1])
    for start in range(0, len(images), _ROWS_PER_BLOCK):
        block = images[start : start + _ROWS_PER_BLOCK]
        # The luminance of ITU-R BT.601, which is JPEG's: colour is kept at half the resolution, and less exactly.
        luminance = block @ np.float32([0.299, 0.587, 0.114])
        grid = average @ luminance @ average.T
        coarse = grid.reshape(-1, points // 2, 2, points // 2, 2).mean(axis=(2, 4))
        detail = grid - coarse.repeat(2, axis=1).repeat(2, axis=2)
        length = np.linalg.norm(detail, axis=(1, 2), keepdims=True)
        np.divide(detail, length, out=details[start : start + len(block)], where=length >= _LEAST_DETAIL * points)
    return details


def _averaging(points: int, size: int) -> np.ndarray:
    """Return the matrix [points, size] that averages `size` pixels over `points` equal intervals."""
    edges, pixels = np.arange(points + 1) * size / points, np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (overlap.clip(0) * points / size).astype(np.float32)


def _orientations(picture: np.ndarray) -> np.ndarray:
    """Return a picture [h, h] in its 8 flips and rotations, [8, h, h]."""
    flips = [picture, picture[::-1], picture[:, ::-1], picture[::-1, ::-1]]
    return np.stack([*flips, *(flip.T for flip in flips)])


def _best_correlations(detail: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the correlation of one detail with each of others [m, h, h], in the best of 8 orientations, [m]."""
    products = _orientations(detail).reshape(8, -1) @ others.reshape(len(others), detail.size).T
    return products.max(axis=0)


def _invariants(details: np.ndarray) -> np.ndarray:
    """Return vectors [n, m] that the 8 flips and rotations leave alone and that lie no farther apart than the details.

    A picture is the sum of parts that are even or odd under the two flips. A flip changes the sign of an odd part; a
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
    even, odd = parts["even", "even"], parts["odd", "odd"]
    invariants = (
        (even + even.swapaxes(1, 2)) / 2,
        abs(even - even.swapaxes(1, 2)) / 2,
        abs(odd + odd.swapaxes(1, 2)) / 2,
        abs(odd - odd.swapaxes(1, 2)) / 2,
        np.hypot(parts["even", "odd"], parts["odd", "even"].swapaxes(1, 2)),
    )
    return np.concatenate([part.reshape(len(details), half * half) for part in invariants], axis=1)


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
