"""Masks against masks drawn by other means, and the fill of what they hide."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.path import Path
from scipy import stats

from bloodcell_jax.augment.masks import cutout, grid_mask, grid_squares, random_erasing
from bloodcell_jax.errors import UsageError

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 2000)
WHITE = jnp.ones((24, 36, 1))
IMAGE = np.random.default_rng(0).uniform(0.3, 0.6, (24, 36, 3)).astype(np.float32)


def hidden(operation, keys=KEYS, white=WHITE, **options):
    """Return which pixels [keys, h, w] an operation hides."""
    apply = jax.jit(jax.vmap(lambda key: operation(key, white, fill="black", **options)))
    return np.asarray(apply(keys))[..., 0] == 0


def sides(masks):
    """Return the heights and widths [n] of masks [n, h, w], each of which must be a box."""
    rows, columns = masks.any(2), masks.any(1)
    np.testing.assert_array_equal(masks, rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):
        assert (np.abs(np.diff(np.pad(line, ((0, 0), (1, 1))).astype(int), axis=1)).sum(1) <= 2).all(), "no gap"
    return rows.sum(1), columns.sum(1)


def test_erasing_hides_a_box_of_the_drawn_area_and_aspect():
    masks = hidden(random_erasing, white=jnp.ones((100, 100, 1)), area=(0.05, 0.2), log_aspect=0.8)
    heights, widths = sides(masks)
    # Sides of 15 to 67 pixels are rounded to whole ones.
    assert stats.kstest(heights * widths / 1e4, stats.uniform(0.05, 0.15).cdf).statistic < 0.03
    assert stats.kstest(np.log(widths / heights), stats.uniform(-0.8, 1.6).cdf).statistic < 0.04


def test_erasing_puts_its_box_anywhere_inside():
    masks = hidden(random_erasing, area=(0.25, 0.25), log_aspect=(0.0, 0.0))
    heights, widths = sides(masks)
    # The root of a quarter of 24 x 36 is 14.7.
    assert (heights == 15).all()
    assert (widths == 15).all()
    tops, lefts = masks.any(2).argmax(1), masks.any(1).argmax(1)
    assert stats.chisquare(np.bincount(tops, minlength=10)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(lefts, minlength=22)).pvalue > 1e-3
    assert (tops.max(), lefts.max()) == (24 - 15, 36 - 15)


def test_a_box_that_is_too_wide_is_cut_to_fit():
    heights, widths = sides(hidden(random_erasing, KEYS[:20], area=(0.5, 0.5), log_aspect=(2.0, 2.0)))
    assert (widths == 36).all()
    assert (heights == round(np.sqrt(0.5 * 24 * 36) / np.e)).all()


def test_cutout_hides_a_square_about_each_pixel():
    masks = hidden(cutout, white=jnp.ones((6, 8, 1)), size=0.5)
    expected = []
    for y, x in itertools.product(range(6), range(8)):
        mask = np.zeros((6, 8), bool)
        # The side is 3 pixels. One pixel is to the left of the center and one is above it.
        mask[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = True
        expected.append(mask)
    counts = np.array([(masks == mask).all((1, 2)).sum() for mask in expected])
    assert counts.sum() == len(masks), "nothing else is hidden"
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(
    ("unit", "ratio", "degrees", "phase"),
    [(0.31, 0.5, 0.0, (0.13, 0.7)), (0.4, 0.37, 33.3, (0.91, 0.02)), (0.27, 0.61, -71.0, (0.4, 0.55))],
)
def test_the_grid_is_one_of_turned_squares(unit, ratio, degrees, phase):
    height, width = 61, 83
    center = np.array([(width - 1) / 2, (height - 1) / 2])
    side, angle = unit * 61, np.deg2rad(degrees)
    # Counterclockwise for the viewer, since y points down. Here the squares' corners turn. The operation turns pixels.
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2)
    expected = np.zeros(len(pixels), bool)
    for place in itertools.product(range(-8, 9), repeat=2):
        corners = (np.array([(0, 0), (ratio, 0), (ratio, ratio), (0, ratio)]) + place - np.array(phase)) * side
        expected |= Path(corners @ turn.T + center).contains_points(pixels)
    found = grid_squares((height, width), unit=unit, ratio=ratio, degrees=degrees, phase=jnp.array(phase))
    np.testing.assert_array_equal(found, expected.reshape(height, width))


def test_the_grid_hides_every_pixel_equally_often():
    masks = hidden(grid_mask, ratio=(0.5, 0.5))
    # Standard deviation 0.01 for each of 864 pixels.
    assert abs(masks.mean(0) - 0.25).max() < 0.05
    # A number draws the ratio from 0: the mean of its square is a third of its largest.
    assert abs(hidden(grid_mask, ratio=0.5).mean() - 0.25 / 3) < 0.008


def test_the_grid_s_size_and_direction_are_drawn():
    # In the middle row of a grid that is not turned, the distance between the starts of two squares is a unit.
    flat = hidden(grid_mask, KEYS[:500], jnp.ones((1, 4000, 1)), unit=(300.0, 500.0), ratio=(0.5, 0.5), degrees=0.0)
    flat = flat[flat.any((1, 2)), 0]
    begins = [np.flatnonzero(np.diff(row.astype(int)) == 1) for row in flat]
    units = np.array([np.diff(places).mean() for places in begins])
    assert stats.kstest(units, stats.uniform(300, 200).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("operation", "options"),
    [(random_erasing, {"area": 0.0}), (cutout, {"size": 0.0}), (grid_mask, {"ratio": 0.0})],
)
@pytest.mark.parametrize("fill", ["mean", "noise", "black"])
def test_nothing_is_hidden_at_zero_strength(operation, options, fill):
    np.testing.assert_array_equal(operation(KEY, IMAGE, fill=fill, **options), IMAGE)


def test_what_fills_a_box():
    def erased(fill):
        found = np.asarray(random_erasing(KEY, IMAGE, area=(0.5, 0.5), log_aspect=0.0, fill=fill))
        mask = (found != IMAGE).any(-1)
        assert mask.sum() > 300
        np.testing.assert_array_equal(found[~mask], IMAGE[~mask])
        return found[mask]

    np.testing.assert_allclose(erased("mean") - IMAGE.mean((0, 1)), 0, atol=1e-6)
    assert (erased("black") == 0).all()
    noise = erased("noise")
    np.testing.assert_allclose(noise.mean(0), IMAGE.mean((0, 1)), atol=0.03)
    np.testing.assert_allclose(noise.std(0), IMAGE.std((0, 1)), rtol=0.15)
    assert np.unique(noise).size > 0.95 * noise.size, "each value has its own"


def test_an_unknown_fill_is_named():
    with pytest.raises(UsageError, match=r"fill=white.*mean, noise, black"):
        cutout(KEY, IMAGE, fill="white")
