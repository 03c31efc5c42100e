"""Synthetic cells are reproducible and balanced, and a linear model cannot tell them apart."""

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import RidgeClassifier

from bloodcell_jax.data.synthetic import CLASS_NAMES, draw_cells


def test_an_image_depends_only_on_seed_and_place():
    images, labels = draw_cells(20, size=48)
    assert (images.shape, images.dtype, labels.dtype) == ((20, 48, 48, 3), np.uint8, np.int32)
    fewer, fewer_labels = draw_cells(11, size=48)
    np.testing.assert_array_equal(fewer, images[:11])
    np.testing.assert_array_equal(fewer_labels, labels[:11])
    other, _ = draw_cells(20, seed=1, size=48)
    assert (other != images).mean() > 0.9


def test_every_round_holds_each_class_once():
    _, labels = draw_cells(32, size=16)
    for round_labels in labels.reshape(-1, len(CLASS_NAMES)):
        assert sorted(round_labels) == list(range(len(CLASS_NAMES)))
    assert draw_cells(0, size=16)[0].shape == (0, 16, 16, 3)


@pytest.mark.parametrize("size", [32, 224])
def test_any_size_shows_the_same_cell(size):
    large, _ = draw_cells(4, size=size)
    middle, _ = draw_cells(4, size=96)
    small = [np.asarray(Image.fromarray(cell).resize((12, 12), Image.BOX), float) for cell in (*large, *middle)]
    for one, other in zip(small[:4], small[4:], strict=True):
        assert abs(one - other).mean() < 12


def test_a_linear_model_on_pixels_stays_under_80_per_cent():
    images, labels = draw_cells(2000, size=48)
    pixels = images.reshape(-1, 24, 2, 24, 2, 3).mean((2, 4)).reshape(2000, -1) / 255 - 0.5
    scores = [
        RidgeClassifier(alpha=alpha).fit(pixels[:1600], labels[:1600]).score(pixels[1600:], labels[1600:])
        for alpha in (1, 10, 30, 100)
    ]
    assert 0.4 < max(scores) < 0.8
