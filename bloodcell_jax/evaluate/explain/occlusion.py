"""Occlusion: how much less likely a class gets when a part of the image is covered. It needs no gradient.

M. Zeiler and R. Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 4.2.
"""

import numpy as np

# The image is cut into so many cells a side. A patch covers two by two of them, so that each cell is under up to four
# patches and its value is a mean over these. That takes 49 forward passes an image.
GRID = 8
_PATCH = 2
_STEPS = GRID - _PATCH + 1
PATCHES = _STEPS**2
# Share of the side, at each border, whose median is the color of the background.
_BORDER = 1 / 16


def occlude(image: np.ndarray) -> np.ndarray:
    """Return an image [h, w, 3] with a patch of the background's color at each of `PATCHES` places, by rows.

    Returns:
      uint8 [PATCHES, h, w, 3].
    """
    rows, columns = (np.rint(np.linspace(0, side, GRID + 1)).astype(int) for side in image.shape[:2])
    color = background_color(image)
    covered = np.repeat(image[None], PATCHES, axis=0)
    for place, patched in enumerate(covered):
        y, x = divmod(place, _STEPS)
        patched[rows[y] : rows[y + _PATCH], columns[x] : columns[x + _PATCH]] = color
    return covered


def background_color(image: np.ndarray) -> np.ndarray:
    """Return the median color of an image's border, uint8 [3]: a single cell lies in the middle of its image."""
    height, width = image.shape[:2]
    margin = max(1, round(_BORDER * min(height, width)))
    inner = np.zeros((height, width), bool)
    inner[margin : height - margin, margin : width - margin] = True
    return np.rint(np.median(image[~inner], axis=0)).astype(np.uint8)


def occlusion_map(log_probability: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Return by how much the log probability of a class falls when a cell of the image is covered, [n, GRID, GRID].

    Args:
      log_probability: of the class, for the whole images, [n].
      covered: the same for the images of `occlude`, [n, PATCHES].

    Returns:
      The mean over the patches that cover a cell, in nats, float64. A value below 0: the class gets more likely.
    """
    drops = log_probability[:, None] - covered
    return (drops @ _COVERS / _COVERS.sum(axis=0)).reshape(-1, GRID, GRID)


def _covers() -> np.ndarray:
    """Return which cells each patch covers, 0 or 1, [PATCHES, GRID * GRID]."""
    along = np.array([[start <= cell < start + _PATCH for cell in range(GRID)] for start in range(_STEPS)], float)
    return np.einsum("yi,xj->yxij", along, along).reshape(PATCHES, GRID * GRID)


_COVERS = _covers()
