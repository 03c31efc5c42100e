"""Occlusion covers what it says, and its map is the mean over the patches that cover a cell."""

import numpy as np
import pytest

from bloodcell_jax.evaluate.explain.occlusion import GRID, PATCHES, background_color, occlude, occlusion_map


@pytest.mark.parametrize("side", [32, 37, 96])
def test_every_pixel_is_covered_and_nothing_else_changes(side):
    image = np.random.default_rng(0).integers(0, 200, (side, side, 3), np.uint8)
    image[:, :3] = image[:, -3:] = image[:3] = image[-3:] = (250, 240, 230)
    covered = occlude(image)
    assert covered.shape == (PATCHES, side, side, 3)
    changed = (covered != image).any(axis=-1)
    inner = (image != (250, 240, 230)).any(axis=-1)
    assert (changed.any(axis=0) == inner).all()
    for patched, mask in zip(covered, changed, strict=True):
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            # A quarter of the side, but for the border, which has the background's color already.
            assert max(len(rows), len(columns)) <= round(side / 4) + 1
            part = patched[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert (part == (250, 240, 230)).all()


def test_the_background_is_the_median_of_the_border():
    image = np.full((64, 64, 3), 10, np.uint8)
    image[:4] = image[-4:] = image[:, :4] = image[:, -4:] = (220, 210, 200)
    image[:20, :20] = (255, 0, 0)  # a red cell that the border cuts
    assert background_color(image).tolist() == [220, 210, 200]


def test_a_map_finds_the_one_cell_that_counts():
    """The log probability is the weight of a cell, if it is seen: the patches over it lose that, and no others."""
    for y, x in ((0, 0), (3, 5), (7, 7)):
        image = np.zeros((32, 32, 3), np.uint8)
        image[4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = 200
        seen = occlude(image)[:, 4 * y, 4 * x, 0] == 200
        (values,) = occlusion_map(np.array([2.0]), np.where(seen, 2.0, -1.0)[None])
        assert np.unravel_index(values.argmax(), values.shape) == (y, x)
        assert values[y, x] == 3.0
        apart = np.abs(np.arange(GRID)[:, None] - y), np.abs(np.arange(GRID) - x)
        assert (values[np.maximum(*apart) > 1] == 0).all()
        assert (values[np.maximum(*apart) <= 1] > 0).all()


def test_a_map_is_the_mean_over_patches():
    drops = np.random.default_rng(0).normal(size=(1, PATCHES))
    (values,) = occlusion_map(np.zeros(1), -drops)
    grid = drops.reshape(GRID - 1, GRID - 1)
    assert values[0, 0] == pytest.approx(grid[0, 0])
    assert values[0, 3] == pytest.approx(grid[0, 2:4].mean())
    assert values[4, 6] == pytest.approx(grid[3:5, 5:7].mean())
