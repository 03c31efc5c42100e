"""Synthetic cells: a stained smear with red cells, and one cell of a known class in the middle.

Stain, light, focus, position and orientation vary from image to image, so that no single pixel tells the class.

Lengths are in halves of the image's side; colors are red, green and blue from 0 to 1.
"""

import functools
from itertools import pairwise

import numpy as np

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.cell_morphology import MORPHOLOGIES, Color, Morphology
from bloodcell_jax.data.dataset import Dataset, index_ids
from bloodcell_jax.errors import UsageError

CLASS_NAMES = tuple(MORPHOLOGIES)

# The fewest cells of a source: 3 of each class, the fewest that a split accepts.
_LEAST_CELLS = 3 * len(CLASS_NAMES)
_RED_CELL: Color = (0.84, 0.72, 0.68)
_SMEAR: Color = (0.98, 0.92, 0.84)


def load_synthetic(place: str, source: str, config: DataConfig) -> Dataset:
    """Draw as many cells as `place` says; see `bloodcell_jax.data.sources.load_source`."""
    if not place.isdecimal() or int(place) < _LEAST_CELLS:
        raise UsageError(f"{source}: give the number of cells, {_LEAST_CELLS} or more, as in synthetic:2000")
    if config.class_names not in ((), CLASS_NAMES):
        raise UsageError(
            f"data.class_names={', '.join(config.class_names)}: synthetic cells are {', '.join(CLASS_NAMES)}; leave "
            "it unset"
        )
    images, labels = draw_cells(int(place), size=config.image_size)
    return Dataset(images, labels, CLASS_NAMES, index_ids(len(labels)), source)


def draw_cells(count: int, *, seed: int = 0, size: int = DataConfig.image_size) -> tuple[np.ndarray, np.ndarray]:
    """Draw images of single cells.

    Image i depends only on (seed, i, size). With c classes, images 0 to c - 1 hold each class once, and so do the
    next c images, and so on.

    Args:
      count: number of images.
      seed: another seed draws other images.
      size: side of an image in pixels.

    Returns:
      Images uint8 [count, size, size, 3] and labels int32 [count], indices into CLASS_NAMES.
    """
    labels = _draw_labels(count, seed)
    images = np.empty((count, size, size, 3), np.uint8)
    for i, label in enumerate(labels):
        images[i] = _draw_image(np.random.default_rng([seed, 0, i]), MORPHOLOGIES[CLASS_NAMES[label]], size)
    return images, labels


def _draw_labels(count: int, seed: int) -> np.ndarray:
    """Return int32 [count]: shuffled rounds, each with every class once."""
    classes = len(CLASS_NAMES)
    rounds = [np.random.default_rng([seed, 1, number]).permutation(classes) for number in range(-(-count // classes))]
    return np.concatenate([np.zeros(0, int), *rounds])[:count].astype(np.int32)


def _draw_image(rng: np.random.Generator, morphology: Morphology, size: int) -> np.ndarray:
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = _SMEAR
    zoom = rng.uniform(0.72, 1.15)
    _draw_red_cells(canvas, rng, zoom)
    _draw_cell(canvas, rng, morphology, zoom)
    _photograph(canvas, rng)
    return np.rint(canvas.clip(0, 1) * 255).astype(np.uint8)


def _draw_red_cells(canvas: np.ndarray, rng: np.random.Generator, zoom: float) -> None:
    y, x = _grid(len(canvas))
    color = np.array(_RED_CELL, np.float32) + rng.uniform(-0.05, 0.05, 3).astype(np.float32)
    pallor, radius = rng.uniform(0.2, 0.8), rng.uniform(0.34, 0.42) * zoom
    for _ in range(rng.integers(3, 9)):
        # They lie around the middle, because the cell is there; the border cuts some of them.
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.3)
        center, own = (distance * np.sin(angle), distance * np.cos(angle)), radius * rng.uniform(0.85, 1.15)
        distance = np.hypot(y - center[0], x - center[1]) / own
        # Red cells are biconcave, and therefore pale in the middle.
        _blend(canvas, color, _inside((distance - 1) * own) * (1 - pallor * np.exp(-3 * distance**2)))


def _draw_cell(canvas: np.ndarray, rng: np.random.Generator, morphology: Morphology, zoom: float) -> None:
    y, x = _turned_grid(len(canvas), rng)
    radius = rng.uniform(*morphology.radius) * zoom
    outline = radius * (1 + morphology.roughness * _wave(y, x, rng))
    cell = _inside(np.hypot(y, x) - outline)
    cytoplasm = np.array(morphology.cytoplasm, np.float32) + rng.uniform(-0.04, 0.04, 3).astype(np.float32)
    _blend(canvas, cytoplasm, cell * rng.uniform(0.85, 1))
    nucleus = _inside(_nucleus_distance(y, x, rng, morphology, radius)) * cell
    granules = cell * _speckle(len(canvas), rng, morphology.granules, morphology.granule_size)
    if not morphology.granules_hide:
        _blend(canvas, morphology.granule, granules * 0.8)
    # Chromatin is clumped, and therefore has lighter and darker patches.
    chromatin = np.array(morphology.nucleus, np.float32) + 0.16 * (_noise(len(canvas), rng, 0.05) - 0.4)[..., None]
    _blend(canvas, chromatin, nucleus * rng.uniform(0.88, 1))
    if morphology.granules_hide:
        _blend(canvas, morphology.granule, granules * 0.8)


def _nucleus_distance(
    y: np.ndarray, x: np.ndarray, rng: np.random.Generator, morphology: Morphology, radius: float
) -> np.ndarray:
    """Return the signed distance to the nucleus, [h, w]: lobes on an arc, each joined to the next by a thread."""
    lobes = rng.choice(len(morphology.lobes), p=morphology.lobes)
    if lobes == 0:
        return np.full(y.shape, np.inf, np.float32)
    spread = rng.uniform(*morphology.spread) * radius
    first, step = rng.uniform(0, 2 * np.pi), min(rng.uniform(1.3, 1.9), 5.0 / lobes)
    angles = first + step * np.arange(lobes)
    centers = np.stack([spread * np.sin(angles), spread * np.cos(angles)], 1)
    own = rng.uniform(*morphology.lobe) * radius
    radii = own * rng.uniform(0.88, 1.12, lobes) if lobes > 1 else [own]
    distance = np.min([np.hypot(y - cy, x - cx) - r for (cy, cx), r in zip(centers, radii, strict=True)], 0)
    for one, other in pairwise(centers):
        distance = np.minimum(distance, _to_segment(y, x, one, other) - 0.3 * own)
    if lobes == 1:
        depth = rng.uniform(*morphology.indentation) * own
        bay, toward = 0.75 * own, rng.uniform(0, 2 * np.pi)
        reach = own + bay - 1.4 * depth
        cy, cx = centers[0] + reach * np.array([np.sin(toward), np.cos(toward)])
        distance = np.maximum(distance, bay - np.hypot(y - cy, x - cx))
    return distance + 0.04 * own * _wave(y, x, rng)


def _photograph(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Vary the focus, light, stain, white balance and sensor noise, in place."""
    focus = rng.uniform(0.0, 0.5)
    for axis in (0, 1):
        canvas += focus * 0.5 * (np.roll(canvas, 1, axis) + np.roll(canvas, -1, axis) - 2 * canvas)
    y, x = _grid(len(canvas))
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.08)
    # A stain absorbs light, so its strength is an exponent of the light that passes.
    np.power(canvas, rng.uniform(0.62, 1.5), out=canvas)
    light = rng.uniform(0.75, 1.02) * (1 + slope * (np.sin(angle) * y + np.cos(angle) * x))
    canvas *= light[..., None] * rng.uniform(0.91, 1.06, 3).astype(np.float32)
    canvas += rng.uniform(0.005, 0.02) * rng.standard_normal(canvas.shape, np.float32)


def _blend(canvas: np.ndarray, color: np.ndarray | Color, alpha: np.ndarray) -> None:
    alpha = alpha[..., None].astype(np.float32)
    canvas += alpha * (np.asarray(color, np.float32) - canvas)


def _inside(distance: np.ndarray) -> np.ndarray:
    """Return 1 inside, at negative distances, and 0 outside; the edge is 0.04 wide."""
    return (0.5 - distance / 0.04).clip(0, 1)


@functools.cache
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1
    return np.meshgrid(axis, axis, indexing="ij")


def _turned_grid(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates (y, x) that are shifted, turned and squeezed to an ellipse."""
    y, x = _grid(size)
    (dy, dx), angle, squeeze = rng.uniform(-0.2, 0.2, 2), rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 1.2)
    sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    y, x = y - np.float32(dy), x - np.float32(dx)
    return (cosine * y - sine * x) * np.float32(squeeze), sine * y + cosine * x


def _wave(y: np.ndarray, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth function of the direction from the middle, about -1 to 1."""
    angle = np.arctan2(y, x)
    wave = np.zeros_like(angle)
    for k in (2, 3, 5):
        wave = wave + np.sin(k * angle + rng.uniform(0, 2 * np.pi)) / np.float32(k - 1)
    return wave / 1.5


def _to_segment(y: np.ndarray, x: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the distance to the segment between two points (y, x)."""
    (ay, ax), (by, bx) = one, other
    along = ((y - ay) * (by - ay) + (x - ax) * (bx - ax)) / ((by - ay) ** 2 + (bx - ax) ** 2)
    along = along.clip(0, 1)
    return np.hypot(y - ay - along * (by - ay), x - ax - along * (bx - ax))


def _speckle(size: int, rng: np.random.Generator, chance: float, width: float) -> np.ndarray:
    """Return granules, 0 to 1: smooth noise above a level that leaves about the fraction `chance` of the area."""
    if chance == 0:
        return np.zeros((size, size), np.float32)
    noise = _noise(size, rng, width)
    return ((noise - (1 - chance) * 0.9) * 6).clip(0, 1)


def _noise(size: int, rng: np.random.Generator, width: float) -> np.ndarray:
    """Return smooth noise in [0, 1]; the points of its grid are `width` of the image apart."""
    points = max(2, round(1 / width))
    spread = _interpolation(points, size)
    return spread @ rng.random((points, points), np.float32) @ spread.T


@functools.cache
def _interpolation(points: int, size: int) -> np.ndarray:
    """Return the matrix [size, points] of linear interpolation from grid points to pixels."""
    position = np.linspace(0, points - 1, size)
    return np.maximum(0, 1 - abs(position[:, None] - np.arange(points))).astype(np.float32)
