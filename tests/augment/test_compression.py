"""JPEG against Pillow's libjpeg: the tables of every quality, and the images that come out."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.augment.compression import CHROMINANCE, LUMINANCE, compress, jpeg, quantization_steps
from bloodcell_jax.data.synthetic import draw_cells

KEY = jax.random.key(0)


def saved(levels, quality):
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=quality)
    return Image.open(file)


def test_the_quantization_tables_of_every_quality_are_libjpeg_s():
    qualities = np.arange(1, 101)
    gray = np.zeros((8, 8, 3), np.uint8)
    expected = np.array([[saved(gray, int(q)).quantization[table] for table in (0, 1)] for q in qualities])
    tables = [jax.vmap(lambda q, t=table: quantization_steps(t, q))(qualities) for table in (LUMINANCE, CHROMINANCE)]
    np.testing.assert_array_equal(np.stack(tables, 1).reshape(100, 2, 64), expected)


# The first shape has whole blocks only. In the second shape the last block and the last pair of pixels are not whole.
@pytest.mark.parametrize("shape", [(48, 64), (45, 51)])
def test_compression_is_libjpeg_s(shape):
    cell = draw_cells(1, size=64)[0][0, : shape[0], : shape[1]]
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    edges = np.repeat(np.where(np.arange(shape[1]) % 7 < 3, 255, 0)[None], shape[0], 0)[..., None] * [1, 0, 1]
    compressed = jax.jit(compress)
    flat = np.full((*shape, 3), 200, np.uint8)
    for levels in (cell, noise, edges.astype(np.uint8), flat):
        for quality in (1, 10, 30, 50, 75, 90, 100):
            found = np.round(np.asarray(compressed(levels / np.float32(255), quality)) * 255)
            differences = np.abs(found - np.asarray(saved(levels, quality)))
            # In float32 one value in a million is a level off. A wrong coefficient would show in a whole block.
            assert differences.max() <= 1
            assert differences.sum() <= 2


def test_what_jpeg_draws():
    image = np.random.default_rng(1).random((8, 8, 3)).astype(np.float32)
    send = jax.jit(jax.vmap(lambda key, low, high: jpeg(key, image, quality=(low, high)), (0, None, None)))
    found = np.asarray(send(jax.random.split(KEY, 900), 11, 13))
    fixed = np.stack([send(jax.random.split(KEY, 900), quality, quality)[0] for quality in range(10, 15)])
    equal = (found[:, None] == fixed[None]).all((2, 3, 4))
    assert (equal.sum(1) == 1).all(), "a whole quality each time"
    assert (equal.sum(0)[[0, 4]] == 0).all()
    # Standard deviation 14.
    assert abs(equal.sum(0)[1:4] - 300).max() < 70
