"""Changed copies of an image are found to be the same, and no two different cells are."""

import io

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.data.duplicates import duplicate_groups, exact_groups, find_duplicates
from bloodcell_jax.data.synthetic import draw_cells

ORIENTATIONS = {
    "mirrored": lambda p: p[:, ::-1],
    "upside down": lambda p: p[::-1],
    "turned by 180": lambda p: p[::-1, ::-1],
    "transposed": lambda p: p.swapaxes(0, 1),
    "turned by 90": np.rot90,
    "turned by 270": lambda p: np.rot90(p, -1),
    "transposed and turned": lambda p: np.rot90(p.swapaxes(0, 1), 2),
}


def brighter(image, shift):
    return np.clip(image.astype(int) + shift, 0, 255).astype(np.uint8)


def compressed(image, quality):
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(content, "jpeg", quality=quality)
    return np.asarray(Image.open(content))


CHANGES = ORIENTATIONS | {
    "brighter": lambda p: brighter(p, 25),
    "darker": lambda p: brighter(p, -25),
    "compressed": lambda p: compressed(p, 60),
    "all of it": lambda p: compressed(brighter(np.rot90(p), 20), 75),
}


@pytest.fixture(scope="module")
def cells():
    return draw_cells(64, seed=5, size=96)[0]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_image_is_the_same_image(cells, change):
    changed = np.stack([CHANGES[change](cell) for cell in cells])
    groups = duplicate_groups(np.concatenate([cells, changed]))
    assert groups.dtype == np.int32
    assert groups.tolist() == [*range(64), *range(64)]


@pytest.mark.parametrize("size", [28, 32, 64])
def test_small_images_too(size):
    cells = draw_cells(400, seed=6, size=size)[0]
    changed = np.stack([compressed(brighter(np.rot90(cell), 10), 90) for cell in cells[:40]])
    groups = duplicate_groups(np.concatenate([cells, changed]))
    assert groups.tolist() == [*range(400), *range(40)]


def test_different_cells_are_different_images():
    cells = draw_cells(800, seed=7, size=64)[0]
    assert duplicate_groups(cells).tolist() == list(range(800))


def test_groups_do_not_depend_on_the_order(cells):
    images = np.concatenate([cells, cells[:9, ::-1], cells[3:6]])
    order = np.random.default_rng(0).permutation(len(images))
    groups, shuffled = duplicate_groups(images), duplicate_groups(images[order])
    together = groups[order][:, None] == groups[order]
    np.testing.assert_array_equal(shuffled[:, None] == shuffled, together)
    assert (shuffled <= np.arange(len(images))).all(), "a group's number is its lowest index"


def test_only_equal_bytes_are_equal(cells):
    images = cells[[0, 1, 0, 2, 1, 0]].copy()
    images[5, 0, 0, 0] ^= 1
    assert exact_groups(images).tolist() == [0, 1, 0, 3, 1, 5]
    assert duplicate_groups(images).tolist() == [0, 1, 0, 3, 1, 0]


def test_blank_images_are_equal_only_to_the_byte():
    shades = np.array([0, 255, 0, 128, 129, 128], np.uint8)
    images = np.broadcast_to(shades[:, None, None, None], (6, 32, 32, 3))
    noisy = np.random.default_rng(0).integers(126, 129, (4, 32, 32, 3), dtype=np.uint8)
    groups = duplicate_groups(np.concatenate([images, noisy]))
    assert groups.tolist() == [0, 1, 0, 3, 4, 3, 6, 7, 8, 9]


@pytest.mark.parametrize("size", [1, 2, 5, 8, 17])
def test_no_image_is_too_small(size):
    images = np.random.default_rng(0).integers(0, 256, (6, size, size, 3), dtype=np.uint8)
    assert duplicate_groups(np.concatenate([images, images]))[6:].tolist() == duplicate_groups(images).tolist()
    assert duplicate_groups(images[:0]).shape == (0,)


def test_images_that_are_merely_alike_are_reported_and_not_grouped(cells):
    # This is one shape with two textures: most of the fine detail is grain.
    grain = np.random.default_rng(0).normal(0, 25, cells[:1].shape)
    grained = (cells[:1] + grain).clip(0, 255).astype(np.uint8)
    found = find_duplicates(np.concatenate([cells, grained]))
    assert found.groups.tolist() == list(range(65))
    assert [(pair.first, pair.second) for pair in found.similar] == [(0, 64)]
    assert found.similar[0].correlation >= 0.95
