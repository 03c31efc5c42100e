"""Geometry against SciPy, and its draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from bloodcell_jax import augment
from bloodcell_jax.errors import UsageError

KEY = jax.random.key(0)
IMAGE = np.random.default_rng(0).random((17, 12, 3)).astype(np.float32)
SQUARE = IMAGE[:12]

# Our fills -> SciPy's mode and value. "reflect" of SciPy repeats the border's own pixel. Gray is outside "constant".
FILLS = {"reflect": ("reflect", 0.0), "edge": ("nearest", 0.0), "constant": ("grid-constant", 0.5)}
CHANGES = [
    {"degrees": 30.0},
    {"shear_x": 0.4},
    {"shear_y": -0.7},
    {"translate_x": 0.31},
    {"translate_y": -1.6},
    {"zoom": 0.7},
    {"degrees": -110.0, "shear_x": 0.3, "shear_y": 0.1, "translate_x": 0.2, "translate_y": 0.1, "zoom": 1.4},
]

warp = jax.jit(augment.warp, static_argnames="fill")


def scipy_warp(image, matrix, fill):
    mode, value = FILLS[fill]
    # SciPy's axes are (row, column).
    linear, offset = matrix[::-1, 1::-1], matrix[::-1, 2]
    channels = [
        ndimage.affine_transform(channel, linear, offset, order=1, mode=mode, cval=value)
        for channel in np.moveaxis(image.astype(np.float64), -1, 0)
    ]
    return np.stack(channels, -1)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: ",".join(changes))
def test_an_affine_map_is_scipy_s(changes, fill):
    matrix = augment.affine_matrix(IMAGE.shape[:2], **changes)
    found = warp(IMAGE, matrix, fill=fill)
    np.testing.assert_allclose(found, scipy_warp(IMAGE, np.asarray(matrix, np.float64), fill), atol=3e-4)


def test_the_directions_are_those_that_the_names_say():
    dot = np.zeros((9, 9, 1), np.float32)
    dot[4, 6] = 1

    def lands(**changes):
        moved = np.asarray(warp(dot, augment.affine_matrix((9, 9), **changes), fill="edge"))[..., 0]
        return tuple(int(i) for i in np.unravel_index(moved.argmax(), moved.shape))

    assert lands() == (4, 6)
    assert lands(degrees=90.0) == (2, 4), "counterclockwise"
    assert lands(translate_x=1 / 9) == (4, 7), "to the right"
    assert lands(translate_y=1 / 9) == (5, 6), "down"
    assert lands(zoom=2.0) == (4, 8), "larger"
    center = np.zeros((9, 9, 1), np.float32)
    center[4, 4] = 1
    for degrees in (45.0, 90.0, 213.0):
        assert warp(center, augment.affine_matrix((9, 9), degrees=degrees))[4, 4] > 0.99


def test_nothing_drawn_is_no_change_and_a_whole_turn_is_none():
    still = augment.affine(KEY, IMAGE, degrees=0.0)
    np.testing.assert_allclose(still, IMAGE, atol=1e-5)
    turned = augment.affine(KEY, IMAGE, degrees=(360.0, 360.0))
    np.testing.assert_allclose(turned, IMAGE, atol=1e-4)


def test_a_quarter_turn_moves_pixels_exactly():
    turned = augment.affine(KEY, SQUARE, degrees=(90.0, 90.0))
    np.testing.assert_allclose(turned, np.rot90(SQUARE), atol=1e-5)


def test_affine_draws_every_axis_for_itself():
    """A ramp along x and a ramp along y show the new place of the center."""
    y, x = np.mgrid[:33, :33].astype(np.float32) / 32
    ramps = np.stack([x, y, 0 * x], -1)
    keys = jax.random.split(KEY, 2000)
    draw = jax.jit(jax.vmap(lambda key: augment.affine(key, ramps, degrees=0.0, translate=0.25)[16, 16]))
    moved = (0.5 - np.asarray(draw(keys))[:, :2]) * 32 / 33
    assert abs(moved).max() <= 0.25 + 1e-5
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.1
    for axis in range(2):
        counts, _ = np.histogram(moved[:, axis], bins=4, range=(-0.25, 0.25))
        # Expected 500 in each, standard deviation 19.
        assert abs(counts - 500).max() < 90


def test_a_crop_lies_inside_and_has_the_area_it_drew():
    y, x = np.mgrid[:32, :32].astype(np.float32) / 31
    ramps = np.stack([x, y, 0 * x], -1)
    keys = jax.random.split(KEY, 500)
    crop = jax.jit(
        jax.vmap(lambda key: augment.random_resized_crop(key, ramps, area=(0.3, 0.6), log_aspect=(-0.3, 0.3)))
    )
    crops = np.asarray(crop(keys))
    # The slope between two inner pixels is the box's width, wherever it lies.
    width = (crops[:, 16, 20, 0] - crops[:, 16, 12, 0]) * 31 / 8
    height = (crops[:, 20, 16, 1] - crops[:, 12, 16, 1]) * 31 / 8
    area, aspect = width * height, np.log(width / height)
    assert 0.3 - 1e-3 < area.min() < 0.32
    assert 0.58 < area.max() < 0.6 + 1e-3
    assert -0.3 - 1e-3 < aspect.min() < -0.27
    assert 0.27 < aspect.max() < 0.3 + 1e-3
    assert crops.min() >= 0
    assert crops.max() <= 1
    assert crops[:, 0, 0, 0].std() > 0.05, "the place is drawn"
    whole = augment.random_resized_crop(KEY, IMAGE, area=1.0, log_aspect=0.0)
    np.testing.assert_allclose(whole, IMAGE, atol=1e-5)


def symmetries(image):
    turned = [np.rot90(image, k) for k in range(4)]
    return turned + [np.fliplr(other) for other in turned]


def test_d4_is_the_eight_symmetries_each_as_likely():
    expected = symmetries(SQUARE)
    assert len({other.tobytes() for other in expected}) == 8
    keys = jax.random.split(KEY, 4000)
    found = np.asarray(jax.jit(jax.vmap(augment.d4, (0, None)))(keys, SQUARE))
    counts = [(found == other).all((1, 2, 3)).sum() for other in expected]
    assert sum(counts) == 4000, "nothing else comes out"
    assert max(abs(count - 500) for count in counts) < 110


def test_d4_wants_a_square():
    with pytest.raises(UsageError, match=r"d4.*5x6"):
        augment.d4(KEY, jnp.zeros((5, 6, 3)))
