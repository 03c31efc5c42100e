"""Images on their way into a network."""

import jax
import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.models.input import resize, to_unit


@pytest.mark.parametrize("size", [48, 72, 95])
def test_images_are_made_smaller_as_by_pillow(size):
    # No value that bicubic weights carry beyond a byte: Pillow clips after each of its two passes.
    images = np.random.default_rng(0).integers(70, 186, (3, 96, 96, 3), dtype=np.uint8)
    resized = np.asarray(jax.jit(lambda x: resize(to_unit(x), size))(images)) * 255
    expected = [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in images]
    # It rounds after each of them, too.
    assert abs(resized - np.stack(expected)).max() < 1.01
    np.testing.assert_allclose(resized, resized.round(), atol=1e-4)


def test_an_image_of_the_right_size_stays_as_it_is():
    images = to_unit(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8))
    assert resize(images, 8) is images
