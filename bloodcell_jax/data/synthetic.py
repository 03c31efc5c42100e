"""Synthetic cells: a stained smear with red cells, and one cell of a known class in the middle.

What tells the classes apart is what tells real ones apart: the shape and lobes of the nucleus, how much of the cell
it fills, granules, the color of the cytoplasm, and size. Stain, light, focus, position and orientation vary from
image to image, so no single pixel says much.

Lengths are in halves of the image's side, colors are red, green and blue from 0 to 1.
"""

import functools
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Range = tuple[float, float]
Color = tuple[float, float, float]


@dataclass(frozen=True)
class Morphology:
    """How cells of one class look; a range is drawn from uniformly.

    Attributes:
      radius: of the cell.
      cytoplasm: its color.
      lobes: of the nucleus, as chances of 0, 1, 2, ... lobes.
      lobe: radius of a lobe as a part of the cell's.
      nucleus: its color.
      spread: radius of the arc that the lobes lie on, as a part of the cell's.
      indentation: how deep a bay cuts into a nucleus of one lobe, as a part of its radius.
      granules: chance that a spot of the granules' grid is one.
      granule_size: its width as a part of the image's.
      granule: its color.
      granules_hide: granules lie over the nucleus too.
      roughness: how far the cell's outline leaves the ellipse, as a part of its radius.
    """

    radius: Range
    cytoplasm: Color
    lobes: tuple[float, ...]
    lobe: Range
    nucleus: Color = (0.27, 0.13, 0.44)
    spread: Range = (0.0, 0.15)
    indentation: Range = (0.0, 0.0)
    granules: float = 0.0
    granule_size: float = 0.03
    granule: Color = (0.45, 0.30, 0.60)
    granules_hide: bool = False
    roughness: float = 0.05


MORPHOLOGIES = {
    "basophil": Morphology(
        radius=(0.52, 0.68),
        cytoplasm=(0.66, 0.54, 0.74),
        lobes=(0, 0.2, 0.5, 0.3),
        lobe=(0.42, 0.52),
        spread=(0.25, 0.4),
        granules=0.65,
        granule_size=0.05,
        granule=(0.14, 0.05, 0.28),
        granules_hide=True,
        roughness=0.08,
    ),
    "eosinophil": Morphology(
        radius=(0.58, 0.74),
        cytoplasm=(0.86, 0.60, 0.58),
        lobes=(0, 0.05, 0.75, 0.2),
        lobe=(0.34, 0.42),
        spread=(0.38, 0.5),
        granules=0.6,
        granule_size=0.04,
        granule=(0.76, 0.40, 0.40),
    ),
    "erythroblast": Morphology(
        radius=(0.36, 0.58),
        cytoplasm=(0.74, 0.62, 0.68),
        lobes=(0, 1.0),
        lobe=(0.46, 0.62),
        nucleus=(0.17, 0.07, 0.30),
    ),
    "ig": Morphology(
        radius=(0.58, 0.78),
        cytoplasm=(0.64, 0.52, 0.72),
        lobes=(0, 1.0),
        lobe=(0.60, 0.74),
        nucleus=(0.37, 0.20, 0.51),
        spread=(0.1, 0.25),
        indentation=(0.0, 0.35),
        granules=0.35,
        granule_size=0.02,
        granule=(0.46, 0.28, 0.60),
    ),
    "lymphocyte": Morphology(
        radius=(0.42, 0.56),
        cytoplasm=(0.56, 0.60, 0.80),
        lobes=(0, 1.0),
        lobe=(0.80, 0.92),
        spread=(0.0, 0.1),
    ),
    "monocyte": Morphology(
        radius=(0.74, 0.92),
        cytoplasm=(0.66, 0.64, 0.76),
        lobes=(0, 1.0),
        lobe=(0.58, 0.72),
        spread=(0.0, 0.2),
        indentation=(0.35, 0.7),
        granules=0.12,
        granule_size=0.05,
        granule=(0.86, 0.82, 0.84),
        roughness=0.10,
    ),
    "neutrophil": Morphology(
        radius=(0.58, 0.74),
        cytoplasm=(0.86, 0.74, 0.76),
        lobes=(0, 0, 0.1, 0.45, 0.35, 0.1),
        lobe=(0.24, 0.32),
        spread=(0.38, 0.5),
        granules=0.3,
        granule_size=0.025,
        granule=(0.76, 0.60, 0.68),
    ),
    "platelet": Morphology(
        radius=(0.16, 0.32),
        cytoplasm=(0.72, 0.58, 0.76),
        lobes=(1.0,),
        lobe=(0.0, 0.0),
        granules=0.45,
        granule_size=0.03,
        granule=(0.42, 0.22, 0.52),
        roughness=0.16,
    ),
}
CLASS_NAMES = tuple(MORPHOLOGIES)

_RED_CELL = (0.84, 0.72, 0.68)
_SMEAR = (0.98, 0.92, 0.84)


def draw_cells(count: int, *, seed: int = 0, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Draw images of single cells.

    Image i depends on (seed, i, size) alone; every block of as many images as there are classes holds each once.

    Args:
      count: how many.
      seed: another one draws other images.
      size: side in pixels.

    Returns:
      Images uint8 [count, size, size, 3] and labels int32 [count], indices into CLASS_NAMES.
    """
    labels = _draw_labels(count, seed)
    images = np.empty((count, size, size, 3), np.uint8)
    for i, label in enumerate(labels):
        images[i] = _draw_image(np.random.default_rng([seed, 0, i]), MORPHOLOGIES[CLASS_NAMES[label]], size)
    return images, labels


def _draw_labels(count: int, seed: int) -> np.ndarray:
    classes = len(CLASS_NAMES)
    blocks = [np.random.default_rng([seed, 1, block]).permutation(classes) for block in range(-(-count // classes))]
    return np.concatenate([np.zeros(0, int), *blocks])[:count].astype(np.int32)


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
    color = np.float32(_RED_CELL) + rng.uniform(-0.05, 0.05, 3).astype(np.float32)
    pallor, radius = rng.uniform(0.2, 0.8), rng.uniform(0.34, 0.42) * zoom
    for _ in range(rng.integers(3, 9)):
        # Around the middle, where the cell is; some are cut by the border.
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.3)
        center, own = (distance * np.sin(angle), distance * np.cos(angle)), radius * rng.uniform(0.85, 1.15)
        distance = np.hypot(y - center[0], x - center[1]) / own
        # Biconcave: pale in the middle.
        _blend(canvas, color, _inside((distance - 1) * own) * (1 - pallor * np.exp(-3 * distance**2)))


def _draw_cell(canvas: np.ndarray, rng: np.random.Generator, morphology: Morphology, zoom: float) -> None:
    y, x = _turned_grid(len(canvas), rng)
    radius = rng.uniform(*morphology.radius) * zoom
    outline = radius * (1 + morphology.roughness * _wave(y, x, rng))
    cell = _inside(np.hypot(y, x) - outline)
    cytoplasm = np.float32(morphology.cytoplasm) + rng.uniform(-0.04, 0.04, 3).astype(np.float32)
    _blend(canvas, cytoplasm, cell * rng.uniform(0.85, 1))
    nucleus = _inside(_nucleus_distance(y, x, rng, morphology, radius)) * cell
    granules = cell * _speckle(len(canvas), rng, morphology.granules, morphology.granule_size)
    if not morphology.granules_hide:
        _blend(canvas, morphology.granule, granules * 0.8)
    # Chromatin is clumped: lighter and darker patches.
    chromatin = np.float32(morphology.nucleus) + 0.16 * (_noise(len(canvas), rng, 0.05) - 0.4)[..., None]
    _blend(canvas, chromatin, nucleus * rng.uniform(0.88, 1))
    if morphology.granules_hide:
        _blend(canvas, morphology.granule, granules * 0.8)


def _nucleus_distance(y, x, rng: np.random.Generator, morphology: Morphology, radius: float) -> np.ndarray:
    """Return the signed distance to the nucleus: lobes on an arc, each joined to the next by a thread."""
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
    """Vary focus, light, stain, white balance and sensor noise, in place."""
    focus = rng.uniform(0.0, 0.5)
    for axis in (0, 1):
        canvas += focus * 0.5 * (np.roll(canvas, 1, axis) + np.roll(canvas, -1, axis) - 2 * canvas)
    y, x = _grid(len(canvas))
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.08)
    # A stain takes light away, so its strength is a power of what passes.
    np.power(canvas, rng.uniform(0.62, 1.5), out=canvas)
    light = rng.uniform(0.75, 1.02) * (1 + slope * (np.sin(angle) * y + np.cos(angle) * x))
    canvas *= light[..., None] * rng.uniform(0.91, 1.06, 3).astype(np.float32)
    canvas += rng.uniform(0.005, 0.02) * rng.standard_normal(canvas.shape, np.float32)


def _blend(canvas: np.ndarray, color, alpha: np.ndarray) -> None:
    alpha = alpha[..., None].astype(np.float32)
    canvas += alpha * (np.asarray(color, np.float32) - canvas)


def _inside(distance: np.ndarray) -> np.ndarray:
    """Return 1 where a signed distance is negative, 0 where positive, with an edge two hundredths wide."""
    return (0.5 - distance / 0.04).clip(0, 1)


@functools.cache
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1
    return np.meshgrid(axis, axis, indexing="ij")


def _turned_grid(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates shifted, turned and squeezed to an ellipse."""
    y, x = _grid(size)
    (dy, dx), angle, squeeze = rng.uniform(-0.2, 0.2, 2), rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 1.2)
    sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    y, x = y - np.float32(dy), x - np.float32(dx)
    return (cosine * y - sine * x) * np.float32(squeeze), sine * y + cosine * x


def _wave(y, x, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth function of the direction from the middle, about -1 to 1."""
    angle = np.arctan2(y, x)
    return sum(np.sin(k * angle + rng.uniform(0, 2 * np.pi)) / np.float32(k - 1) for k in (2, 3, 5)) / 1.5


def _to_segment(y, x, one, other) -> np.ndarray:
    (ay, ax), (by, bx) = one, other
    along = ((y - ay) * (by - ay) + (x - ax) * (bx - ax)) / ((by - ay) ** 2 + (bx - ax) ** 2)
    along = along.clip(0, 1)
    return np.hypot(y - ay - along * (by - ay), x - ax - along * (bx - ax))


def _speckle(size: int, rng: np.random.Generator, chance: float, width: float) -> np.ndarray:
    """Return granules: smooth noise above the level that leaves `chance` of the area."""
    if chance == 0:
        return np.zeros((size, size), np.float32)
    noise = _noise(size, rng, width)
    return ((noise - (1 - chance) * 0.9) * 6).clip(0, 1)


def _noise(size: int, rng: np.random.Generator, width: float) -> np.ndarray:
    """Return smooth noise in [0, 1], its grid `width` of the image wide."""
    points = max(2, round(1 / width))
    spread = _interpolation(points, size)
    return spread @ rng.random((points, points), np.float32) @ spread.T


@functools.cache
def _interpolation(points: int, size: int) -> np.ndarray:
    """Return the matrix [size, points] of linear interpolation."""
    position = np.linspace(0, points - 1, size)
    return np.maximum(0, 1 - abs(position[:, None] - np.arange(points))).astype(np.float32)
