"""Corruptions against Pillow, SciPy and colorsys, which compute them independently."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance
from scipy import ndimage, stats

from bloodcell_jax.augment.corruptions import camera, lens, smear
from bloodcell_jax.data.synthetic import draw_cells

KEY = jax.random.key(3)
SIDE = 48


@pytest.fixture(scope="module")
def cell():
    """Return a synthetic cell with fine noise, uint8 [48, 48, 3]."""
    cell = draw_cells(4, size=SIDE)[0][3].astype(np.int16)
    return np.clip(cell + np.random.default_rng(0).integers(-20, 21, cell.shape), 0, 255).astype(np.uint8)


def levels(image):
    return np.round(np.asarray(image, np.float64) * 255)


def unit(image):
    return jnp.asarray(image, jnp.float32) / 255


@pytest.mark.parametrize("side", [48, 50])
def test_pixelate_is_pillow_s_box_filter_to_the_bit(cell, side):
    image = Image.fromarray(cell).resize((side, side))
    run = jax.jit(camera.pixelate)
    for part in (0.6, 0.5, 0.4, 0.3, 0.25):
        small = int(side * part)
        expected = image.resize((small, small), Image.Resampling.BOX).resize((side, side), Image.Resampling.BOX)
        np.testing.assert_array_equal(levels(run(KEY, unit(image), part)), np.asarray(expected), err_msg=str(part))


def test_brightness_and_contrast_are_pillow_s_to_a_level(cell):
    image = Image.fromarray(cell)
    for factor in (0.5, 0.9, 1.1, 1.4):
        for run, enhance in ((camera.brightness, ImageEnhance.Brightness), (camera.contrast, ImageEnhance.Contrast)):
            expected = np.asarray(enhance(image).enhance(factor), np.float64)
            assert np.abs(levels(run(KEY, unit(cell), factor)) - expected).max() <= 1, (run, factor)


@pytest.mark.parametrize(
    ("run", "place", "amount"),
    [(camera.saturate, 1, 0.2), (camera.saturate, 1, 0.05), (camera.brightness_of_hsv, 2, 0.3)],
)
def test_changes_of_hsv_are_colorsys_s(cell, run, place, amount):
    corner = cell[:12, :12].copy()
    corner[0, 0] = 128  # Gray has hue 0, and becomes red.

    def expected(pixel):
        hsv = list(colorsys.rgb_to_hsv(*pixel))
        hsv[place] = min(hsv[place] + amount, 1)
        return colorsys.hsv_to_rgb(*hsv)

    wanted = [[expected(pixel) for pixel in row] for row in corner / 255]
    np.testing.assert_allclose(run(KEY, unit(corner), amount), wanted, atol=1e-5)


def test_contrast_of_channels_keeps_each_mean(cell):
    image = unit(cell)
    means = np.asarray(image).mean((0, 1))
    np.testing.assert_allclose(
        camera.contrast_of_channels(KEY, image, 0.1), means + 0.1 * (np.asarray(image) - means), atol=1e-5
    )


@pytest.mark.parametrize("radius", [0.9, 1.7, 2.1])
def test_defocus_is_a_convolution_with_a_disk(cell, radius):
    reach, fine = 3, 101
    places = (np.arange((2 * reach + 1) * fine) + 0.5) / fine - reach - 0.5
    inside = np.hypot(places[:, None], places) <= radius
    kernel = inside.reshape(2 * reach + 1, fine, 2 * reach + 1, fine).mean((1, 3))
    expected = ndimage.correlate(cell / 255, (kernel / kernel.sum())[..., None], mode="mirror")
    assert np.abs(lens.defocus(KEY, unit(cell), radius / SIDE) - expected).max() < 0.02
    assert np.abs(expected - cell / 255).max() > 0.1, "it blurs"


def test_motion_adds_images_along_a_line(cell):
    radius, sigma = 3.3, 2.5
    angle = np.deg2rad(float(jax.random.uniform(KEY, minval=-45.0, maxval=45.0)))
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    distances = np.linspace(0, 2 * radius, 41)
    weights = np.exp(-0.5 * (distances / sigma) ** 2)
    expected = sum(
        weight * moved(cell, y + distance * np.sin(angle), x + distance * np.cos(angle))
        for weight, distance in zip(weights / weights.sum(), distances, strict=True)
    )
    np.testing.assert_allclose(lens.motion(KEY, unit(cell), radius / SIDE, sigma / SIDE), expected, atol=1e-4)


def moved(image, y, x):
    """Return the values of an image at places, the border repeated, by SciPy."""
    channels = [ndimage.map_coordinates(image[..., c] / 255, [y, x], order=1, mode="nearest") for c in range(3)]
    return np.stack(channels, axis=-1)


def test_zoom_averages_enlargements(cell):
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    middle = (SIDE - 1) / 2
    zoomed = [moved(cell, y / factor + middle, x / factor + middle) for factor in np.linspace(1, 1.26, 16)]
    expected = (cell / 255 + sum(zoomed)) / 17
    np.testing.assert_allclose(lens.zoom(KEY, unit(cell), 1.26), expected, atol=1e-4)


def test_glass_blurs_twice_and_moves_pixels(cell):
    still = jax.jit(lens.glass)(KEY, unit(cell), 1.5 / 224, 0.0, 2)
    expected = cell / 255
    for _ in range(2):
        expected = ndimage.gaussian_filter(expected, 1.5 / 224 * SIDE, radius=2, mode="nearest", axes=(0, 1))
    np.testing.assert_allclose(still, expected, atol=1e-5)
    through_glass = lens.glass(KEY, unit(cell), 1.5 / 224, 4 / 224, 2)
    assert 0.005 < np.abs(np.asarray(through_glass) - still).mean() < 0.1


def test_elastic_smooths_moves_as_scipy_does(cell):
    np.testing.assert_allclose(lens.elastic(KEY, unit(cell), 0.0, 0.1, 0.0), unit(cell), atol=1e-5)
    _, move_key = jax.random.split(KEY)
    sigma, strength = 3.0, 0.3
    moves = np.asarray(jax.random.uniform(move_key, (2, SIDE, SIDE), minval=-1, maxval=1), np.float64)
    smooth = ndimage.gaussian_filter(moves, sigma, axes=(1, 2), mode="reflect", truncate=20) * strength * SIDE
    y, x = np.mgrid[:SIDE, :SIDE] + smooth
    limit = SIDE - 1
    expected = moved(cell, np.clip(y, 0, limit), np.clip(x, 0, limit))
    np.testing.assert_allclose(lens.elastic(KEY, unit(cell), strength, sigma / SIDE, 0.0), expected, atol=1e-3)


def test_elastic_moves_three_corners(cell):
    """The affine map takes the three points of the middle third to where they were moved."""
    ramp = jnp.stack([jnp.tile(jnp.linspace(0, 1, SIDE), (SIDE, 1))] * 3, axis=-1)  # Its value is its column.
    corner_key, _ = jax.random.split(KEY)
    corners = 0.05
    moves = np.asarray(jax.random.uniform(corner_key, (3, 2), minval=-1, maxval=1)) * corners * SIDE
    shifted = np.asarray(lens.elastic(KEY, ramp, 0.0, 0.1, corners))[..., 0] * (SIDE - 1)
    middle, third = (SIDE - 1) / 2, SIDE / 3
    for (dy, dx), (_, move_x) in zip(((1, 1), (1, -1), (-1, -1)), moves, strict=True):
        place = [[middle + dy * third], [middle + dx * third]]
        column = ndimage.map_coordinates(shifted, place, order=1)[0]
        assert column == pytest.approx(middle + dx * third + move_x, abs=0.02)


def test_noise_has_the_spread_that_it_names():
    gray = jnp.full((80, 80, 3), 0.4)
    added = np.asarray(camera.gaussian_noise(KEY, gray, 0.08)) - 0.4
    assert added.std() == pytest.approx(0.08, rel=0.02)
    assert abs(added.mean()) < 0.002
    shot = np.asarray(camera.shot_noise(KEY, gray, 25.0)) * 25
    np.testing.assert_allclose(shot, np.round(shot), atol=1e-4)
    assert shot.mean() == pytest.approx(10, rel=0.02)
    assert np.minimum(shot, 25).var() == pytest.approx(10, rel=0.05)
    counts = np.bincount(shot.round().astype(int).ravel(), minlength=26)[:26]
    expected = stats.poisson(0.4 * 25).pmf(np.arange(26)) * shot.size
    assert stats.chisquare(counts[2:20], expected[2:20] * counts[2:20].sum() / expected[2:20].sum()).pvalue > 1e-3
    struck = np.asarray(camera.impulse_noise(KEY, gray, 0.2))
    assert [(struck == value).mean() for value in (0, 1)] == pytest.approx([0.1, 0.1], abs=0.01)
    assert set(np.unique(struck).round(4)) == {0, np.float32(0.4).round(4), 1}


def test_bubbles_are_those_that_pillow_draws(cell):
    image = Image.fromarray(cell).resize((224, 224))
    radii, y, x = np.array([15.0, 5.0, 9.0, 12.0]), np.array([60.0, 70.0, 150.0, 100.0]), np.array([60.0, 66, 30, 180])
    layer = Image.new("RGBA", image.size, (255, 255, 255, 0))
    draw = ImageDraw.Draw(layer)
    for radius, row, column in list(zip(radii, y, x, strict=True))[:3]:
        for more, alpha in ((2, 130), (0, 100)):
            box = (column - radius - more, row - radius - more, column + radius + more, row + radius + more)
            draw.ellipse(box, fill=(255, 255, 255, alpha))
    expected = image.copy()
    expected.paste(layer, (0, 0), layer)
    covered = levels(smear.cover_with_bubbles(unit(image), radii, y, x, 3))
    differs = np.abs(covered - np.asarray(expected)).max(-1) > 1
    assert differs.mean() < 0.004, "only at the edges of the circles, where Pillow rounds its own way"
    assert (np.asarray(expected) != np.asarray(image)).any(-1).mean() > 0.02


def test_bubbles_lie_inside_and_have_the_sizes_and_numbers_of_the_severity():
    dark, keys = jnp.zeros((96, 96, 3)), jax.random.split(KEY, 64)
    run = jax.jit(lambda radius, count: jax.vmap(lambda key: smear.bubble(key, dark, radius, count))(keys))
    draws = run(5 / 224, 10)
    share = (np.asarray(draws)[..., 0] > 0).mean((1, 2))
    smallest, largest = (count * np.pi * (radius / 224) ** 2 for count, radius in ((1, 5), (10, 7)))
    assert smallest < share.min()
    assert share.max() < 1.3 * largest
    worst = run(15 / 224, 12)
    assert (np.asarray(worst)[..., 0] > 0).mean() > 2 * share.mean()


def test_deposits_are_dark_marks_of_the_wanted_number():
    white = jnp.ones((96, 96, 3))

    def marks(count):
        images = jax.jit(jax.vmap(lambda key: smear.stain_deposit(key, white, count)))(jax.random.split(KEY, 60))
        return (np.asarray(images)[..., 0] < 0.5), np.asarray(images)

    for most in (1, 3):
        dark, images = marks(most)
        assert images.max() == 1
        assert 0.1**most - 1e-3 < images.min() < 0.11
        # A mark may fall apart or lie on another one.
        counts = [ndimage.label(ndimage.binary_dilation(image, iterations=3))[1] for image in dark]
        assert min(counts) >= 1
        assert max(counts) <= most + 1
        assert 0.005 < dark.mean() < 0.06 * most
    assert marks(3)[0].mean() > 1.5 * marks(1)[0].mean()
