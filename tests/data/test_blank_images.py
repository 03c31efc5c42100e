"""Images that decode to nothing are refused with the numbers that were found; dark and even ones that show are read."""

import io
import json
import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax import cli
from bloodcell_jax.data.file_trees import UnreadableFile
from bloodcell_jax.data.geometry import Geometry
from bloodcell_jax.data.image_files import decode
from bloodcell_jax.data.pixel_levels import BLACK
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.data.stored_images import StoredImages
from bloodcell_jax.errors import DataError

SIZE = 32
SHADES = np.linspace(0, 1, SIZE * SIZE).reshape(SIZE, SIZE)
GRAY = np.round(SHADES * 255).astype(np.uint8)
CELLS = np.random.default_rng(0).integers(20, 240, (12, SIZE, SIZE, 3), np.uint8)
LABELS = np.arange(12) % 2
REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "pbc_original_sample"
# The brightest levels of the darkest image found are 188 of 255 among drawn cells, and 228 among 13,663 real ones.
DARKEST_CELL = 180


def encoded(image, kind="png", **options):
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def read(content, crop=None):
    return decode(content, "a.x", Geometry(SIZE, crop))


def tiff(levels, bits, *, photometric=1, samples=1):
    """Return an uncompressed TIFF of rows of bytes, as microscopes write it and Pillow does not."""
    height, width = levels.shape[:2]
    if bits == 12:
        high, low = levels.reshape(-1, 2).T.astype(np.uint32)
        rows = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], -1).astype(np.uint8).tobytes()
    else:
        rows = levels.astype("<u2").tobytes()
    depth = (258, 3, 1, bits) if samples == 1 else (258, 3, samples, 8 + 2 + 12 * 9 + 4)
    tags = [(256, 3, 1, width), (257, 3, 1, height), depth, (259, 3, 1, 1), (262, 3, 1, photometric)]
    start = 8 + 2 + 12 * 9 + 4 + 2 * samples
    tags += [(273, 4, 1, start), (277, 3, 1, samples), (278, 3, 1, height), (279, 4, 1, len(rows))]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + entries + bytes(4) + struct.pack("<H", bits) * samples + rows


def color_of(levels):
    return np.repeat(levels[..., None], 3, -1)


def transparent(alpha):
    return np.dstack([color_of(GRAY), np.full((SIZE, SIZE), alpha, np.uint8)])


def ppm(levels):
    return b"P6 %d %d 65535\n" % (SIZE, SIZE) + color_of(levels).astype(">u2").tobytes()


def deep(bits):
    return np.round(SHADES * (2**bits - 1)).astype(np.uint16)


NOTHING = {
    "black": (encoded(np.zeros((SIZE, SIZE, 3), np.uint8)), "0 of 255"),
    "divided by 255 and cast": (encoded((color_of(GRAY) / 255).astype(np.uint8)), "1 of 255"),
    "12 bits cut to 8": (encoded(color_of((deep(12) >> 8).astype(np.uint8))), "15 of 255"),
    "standardized and cast": (
        encoded(np.floor((color_of(GRAY) - 127.0) / 60).astype(np.int8).view(np.uint8)),
        "239 to 255",
    ),
    "one color": (encoded(np.full((SIZE, SIZE, 3), (9, 99, 199), np.uint8)), "9, 99, 199"),
    "one color as JPEG": (encoded(np.full((SIZE, SIZE, 3), 200, np.uint8), "jpeg"), "200, 200, 200"),
    "white": (encoded(Image.new("1", (SIZE, SIZE), 1)), "255, 255, 255"),
    "transparent": (encoded(transparent(0)), "alpha is 0 of 255"),
    "alpha cast from 0 to 1": (encoded(transparent(1)), "alpha is 1 of 255"),
    "transparent palette": (encoded(Image.new("P", (SIZE, SIZE)), transparency=0), "alpha is 0 of 255"),
    "transparent WebP": (encoded(transparent(0), "webp", lossless=True), "alpha is 0 of 255"),
    "8 bits in 16": (encoded(deep(8)), "255 of 65535: 8 of 16 bits"),
    "10 bits in 16": (encoded(deep(10)), "1023 of 65535: 10 of 16 bits"),
    "12 bits in 16": (encoded(deep(12)), "4095 of 65535: 12 of 16 bits"),
    "14 bits in 16": (encoded(deep(14)), "16383 of 65535: 14 of 16 bits"),
    "12 bits in a TIFF": (encoded(deep(12), "tiff"), "4095 of 65535"),
    "12 bits in a deflated TIFF": (encoded(deep(12), "tiff", compression="tiff_deflate"), "4095 of 65535"),
    "12 bits in a PGM": (encoded(deep(12), "ppm"), "4095 of 65535"),
    "14 bits of color in a TIFF": (tiff(color_of(deep(14)), 16, photometric=2, samples=3), "63 of 255: 14 of 16 bits"),
    "14 bits of color in a PPM": (ppm(deep(14)), "64 of 255: 14 of 16 bits"),
    "12 bits in 16, white as 0": (tiff(deep(12), 16, photometric=0), "4095 of 65535"),
    "10 bits in 12": (tiff(deep(10), 12), "1023 of 4095: 10 of 12 bits"),
}


@pytest.mark.parametrize("case", NOTHING)
def test_a_file_that_shows_nothing_says_what_was_found(case):
    content, numbers = NOTHING[case]
    with pytest.raises(UnreadableFile) as caught:
        read(content)
    assert numbers in caught.value.reason
    assert "\n" not in str(caught.value)


def test_the_part_that_is_looked_at_decides():
    field = np.full((3 * SIZE, 3 * SIZE, 3), 200, np.uint8)
    field[:SIZE, :SIZE] = color_of(GRAY)
    assert read(encoded(field)).shape == (SIZE, SIZE, 3)
    with pytest.raises(UnreadableFile, match="middle has one color: 200, 200, 200"):
        read(encoded(field), crop=SIZE)


SHOWN = {
    "a dark field": color_of((GRAY // 8).astype(np.uint8)),
    "one bright spot": np.pad(np.full((2, 2, 3), BLACK + 1, np.uint8), ((9, SIZE - 11), (9, SIZE - 11), (0, 0))),
    "an empty slide": np.random.default_rng(0).integers(244, 249, (SIZE, SIZE, 3), np.uint8),
    "black and white": color_of(GRAY // 128 * 255),
}


@pytest.mark.parametrize("case", SHOWN)
def test_a_dark_or_even_image_that_shows_something_is_read(case):
    np.testing.assert_array_equal(read(encoded(SHOWN[case])), SHOWN[case])


@pytest.mark.parametrize("scale", [257, 70])  # 70: a field that fills little more than a quarter
def test_sixteen_bits_that_are_filled_are_read(scale):
    levels = GRAY.astype(np.uint16) * scale
    expected = color_of(np.round(levels / 257)).astype(int)
    for content in (encoded(levels), encoded(levels, "tiff"), tiff(levels, 16)):
        assert abs(read(content).astype(int) - expected).max() <= 1


def test_twelve_bits_that_the_file_declares_fill_the_range():
    assert abs(read(tiff(deep(12), 12)).astype(int) - color_of(GRAY)).max() <= 1


def test_sixteen_bits_with_white_as_zero_are_turned():
    found = read(tiff(65535 - deep(16), 16, photometric=0)).astype(int)
    assert abs(found - color_of(GRAY)).max() <= 1


def test_drawn_cells_are_far_from_black():
    images = load_source("synthetic:200", image_size=96).images
    assert images[:].max((1, 2, 3)).min() > DARKEST_CELL


@pytest.mark.real
@pytest.mark.skipif(not REAL.exists(), reason="no real cells in ../shared/data")
def test_real_cells_are_far_from_black():
    for path in REAL.glob("*/*.jpg"):
        assert read(path.read_bytes(), crop=200).max() > DARKEST_CELL


ARRAYS = {
    "cast to 0 and 1": ((CELLS / 255 + 0.5).astype(np.uint8), "brightest value is 1 of 255"),
    "black": (CELLS * 0, "brightest value is 0 of 255"),
    "12 bits cut to 8": (CELLS // BLACK, "brightest value is 14 of 255"),
    "divided twice": ((CELLS / 255 / 255).astype(np.float32), "brightest value is 1 of 255 (as floats 0.0037 of 1"),
    "12 bits as a share of 16": (CELLS / 255 * 4095 / 65535, "brightest value is 15 of 255"),
    "standardized and cast": (np.floor((CELLS - 127.0) / 60).astype(np.int8).view(np.uint8), "239 to 255"),
    "even": (np.full_like(CELLS, 77), "each image has one color"),
    "channels first": (CELLS.transpose(0, 3, 1, 2), "[12, 3, 32, 32]; expected [n, height, width, 3]: the colors come"),
    "channels first as floats": (CELLS.transpose(0, 3, 1, 2) / 255, "np.moveaxis(images, 1, -1)"),
    "images last": (CELLS.transpose(1, 2, 3, 0), "np.moveaxis(images, -1, 0)"),
    "gray": (CELLS[..., 0], "np.repeat(images[..., None], 3, -1)"),
    "one channel": (CELLS[..., :1], "np.repeat(images, 3, -1)"),
    "alpha": (CELLS[..., [0, 1, 2, 0]], "images[..., :3]"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_show_nothing_are_refused(tmp_path, monkeypatch, capsys, case):
    monkeypatch.chdir(tmp_path)
    images, words = ARRAYS[case]
    np.savez("cells.npz", images=images, labels=LABELS)
    source = "--config.data.source=npz:cells.npz"
    assert cli.main(["bloodcell", "train", "--config=quickstart", "--workdir=run", source]) == 3
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("bloodcell: "))
    assert "npz:cells.npz: images " in line
    assert words in line


@pytest.mark.parametrize("images", [CELLS, CELLS / 255, CELLS // 8, np.where(CELLS > 128, 255, 0).astype(np.uint8)])
def test_arrays_that_show_something_are_read(tmp_path, caplog, images):
    np.savez(tmp_path / "cells.npz", images=images, labels=LABELS)
    expected = CELLS if images.dtype != np.uint8 else images
    np.testing.assert_array_equal(load_source(f"npz:{tmp_path / 'cells.npz'}", image_size=SIZE).images, expected)
    assert not caplog.messages


def test_rows_that_were_never_filled_are_counted(tmp_path, caplog):
    images = CELLS.copy()
    images[9:] = 0
    np.savez(tmp_path / "cells.npz", images=images, labels=LABELS)
    with caplog.at_level(logging.WARNING, "bloodcell_jax"):
        assert len(load_source(f"npz:{tmp_path / 'cells.npz'}", image_size=SIZE)) == 12
    assert "images: 3 of 12 " in caplog.text
    assert "number 9" in caplog.text


class Stored(list):
    name = "train"

    def __getitems__(self, numbers):
        return [self[number] for number in numbers]


def test_prepared_images_of_fewer_bits_are_named():
    images = StoredImages([Stored([encoded(deep(16)), encoded(deep(12))])], SIZE, "tfds:x", "")
    assert abs(images[0].astype(int) - color_of(GRAY)).max() <= 1
    with pytest.raises(DataError, match=r"tfds:x: example 1 of train .*4095 of 65535"):
        images[1]


def test_skip_bad_leaves_out_files_that_show_nothing(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(CELLS[i]).save(tmp_path / name / f"{i}.png")
    (tmp_path / "a" / "dark.tif").write_bytes(NOTHING["12 bits in a TIFF"][0])
    with pytest.raises(DataError, match=r"1 of 7 images .*a/dark\.tif \(.*4095 of 65535"):
        load_source(f"folder:{tmp_path}", image_size=SIZE)
    skipped = load_source(f"folder:{tmp_path}", image_size=SIZE, skip_bad=True).skipped
    assert list(skipped) == ["a/dark.tif"]
    assert json.dumps(skipped)
