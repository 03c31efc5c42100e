"""Image files of any kind are decoded right, or refused with the reason."""

import importlib.util
import io
import logging
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from bloodcell_jax.data import image_files
from bloodcell_jax.data.file_trees import UnreadableFile
from bloodcell_jax.data.geometry import Geometry
from bloodcell_jax.data.image_files import SUFFIXES, decode

SIZE = 16
# This image is smooth, so that lossy formats stay close to it.
ROWS, COLUMNS = np.mgrid[0:SIZE, 0:SIZE]
PIXELS = np.stack([8 * ROWS, 255 - 8 * COLUMNS, 4 * (ROWS + COLUMNS)], -1).astype(np.uint8)


def encoded(image, kind="png", **options):
    """Return the file of an array or a Pillow image."""
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, bits, rows=b""):
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def planar_tiff(bits):
    """Return a TIFF of PIXELS that stores a plane for each color, 8 or 16 bits a value."""
    planes = (PIXELS.astype(f"<u{bits // 8}") * (257 if bits == 16 else 1)).transpose(2, 0, 1).tobytes()
    plane, at = SIZE * SIZE * bits // 8, 8 + 2 + 9 * 12 + 4
    # Width, height, bits, compression, RGB, offsets of the planes, samples, their bytes, a plane for each.
    entries = [(256, 3, 1, SIZE), (257, 3, 1, SIZE), (258, 3, 3, at), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 3, at + 6), (277, 3, 1, 3), (279, 4, 3, at + 18), (284, 3, 1, 2)]
    header = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    offsets = [at + 30 + number * plane for number in range(3)]
    return header + bytes(4) + struct.pack("<3H6I", *[bits] * 3, *offsets, *[plane] * 3) + planes


def read(content, size=SIZE):
    return decode(content, "a", Geometry(size, None))


@pytest.mark.parametrize(
    ("size", "crop", "box"),
    [
        ((363, 360), 200, (81, 80, 281, 280)),
        ((200, 300), 200, (0, 50, 200, 250)),  # not larger on both sides: the centered square
        ((96, 96), 200, (0, 0, 96, 96)),
        ((360, 250), None, (55, 0, 305, 250)),
        ((360, 360), 100, (130, 130, 230, 230)),
    ],
)
def test_image_files_are_cropped_then_resized(size, crop, box):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    found = decode(encoded(image), "a", Geometry(64, crop))
    expected = image.crop(box).resize((64, 64), Image.BICUBIC)
    np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(mode):
    assert read(encoded(Image.fromarray(PIXELS).convert(mode), "tiff")).shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize(
    ("mode", "kind", "tolerance"),
    [("CMYK", "tiff", 1), ("CMYK", "jpeg", 12), ("P", "gif", 8), ("P", "png", 8), ("RGBA", "png", 0)],
)
def test_colors_survive_the_file_s_own_mode(mode, kind, tolerance):
    image = Image.fromarray(PIXELS)
    found = read(encoded(image.quantize() if mode == "P" else image.convert(mode), kind))
    assert abs(found.astype(int) - PIXELS).max() <= tolerance


def test_gray_is_gray():
    gray = PIXELS[..., 0]
    for content in (encoded(gray), encoded(gray, "tiff"), encoded(Image.fromarray(gray).convert("LA"))):
        np.testing.assert_array_equal(read(content), np.repeat(gray[..., None], 3, -1))


def test_suffixes_are_those_of_single_images_that_this_pillow_opens(monkeypatch):
    assert {".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".bmp", ".dib", ".tif", ".webp", ".gif", ".pgm"} <= SUFFIXES
    assert not SUFFIXES & {".pdf", ".eps", ".svg", ".psd", ".ico", ".mpg", ".h5", ".dng", ".txt", ""}
    assert (".jp2" in SUFFIXES) == features.check("jpg_2000")
    assert (".heic" in SUFFIXES) == (importlib.util.find_spec("pillow_heif") is not None)
    registered = {".jpg": "JPEG", ".jp2": "JPEG2000", ".heic": "HEIF", ".pdf": "PDF"}
    monkeypatch.setattr(image_files.Image, "registered_extensions", lambda: registered)
    monkeypatch.setattr(image_files.features, "check", lambda name: name != "jpg_2000")
    assert image_files._readable_suffixes() == {".jpg", ".heic"}


KINDS = ["dib", "gif", "jpeg", "pcx", "png", "sgi", "tga", "tiff", "webp"]
KINDS += [kind for kind, suffix in (("avif", ".avif"), ("jpeg2000", ".jp2")) if suffix in SUFFIXES]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_of_a_suffix_is_decoded(kind):
    found = read(encoded(PIXELS, kind))
    assert abs(found.astype(int) - PIXELS).mean() < 8


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_sixteen_bits_of_gray_keep_their_shades(kind):
    deep = (PIXELS[..., 0].astype(np.uint16) * 257) + np.uint16(5)
    found = read(encoded(Image.fromarray(deep), kind))
    np.testing.assert_array_equal(found, np.repeat(PIXELS[..., :1], 3, -1))


def test_sixteen_bits_of_color_keep_their_shades():
    deep = (PIXELS.astype(">u2") * 257).reshape(SIZE, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    np.testing.assert_array_equal(read(png(SIZE, SIZE, 16, rows)), PIXELS)


def test_a_plane_for_each_color_is_read_if_it_has_eight_bits():
    np.testing.assert_array_equal(read(planar_tiff(8)), PIXELS)


def test_transparent_parts_lie_on_white():
    layer = np.dstack([PIXELS, np.full((SIZE, SIZE), 255, np.uint8)])
    layer[:4, :, 3], layer[4:8, :, 3] = 0, 128
    found = read(encoded(layer)).astype(int)
    np.testing.assert_array_equal(found[:4], 255)
    assert abs(found[4:8] - (PIXELS[4:8].astype(int) + 255) / 2).max() <= 2
    np.testing.assert_array_equal(found[8:], PIXELS[8:])


@pytest.mark.parametrize("turn", range(1, 9))
def test_an_image_stands_upright_however_the_camera_was_held(turn):
    image = Image.fromarray(PIXELS)
    exif = image.getexif()
    exif[0x0112] = turn
    expected = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.swapaxes(0, 1),
        6: np.rot90(PIXELS, -1),
        7: PIXELS[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(PIXELS),
    }[turn]
    np.testing.assert_array_equal(read(encoded(image, exif=exif)), expected)


@pytest.mark.parametrize("kind", ["gif", "png", "tiff", "webp"])
def test_the_first_frame_of_an_animation_is_read_and_said(kind, caplog):
    frames = [Image.fromarray(np.full((SIZE, SIZE, 3), value, np.uint8)) for value in (40, 120, 200)]
    frames[0].putpixel((0, 0), (42, 42, 42))  # An image of one color is refused.
    options = {"lossless": True} if kind == "webp" else {}
    with caplog.at_level(logging.INFO, "bloodcell_jax"):
        found = read(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert abs(found.astype(int) - 40).max() <= 2
    (message,) = caplog.messages
    assert message.startswith("a: 3 frames")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"hello", "not a known image format"),
        (png(64, 64, 8, bytes(4000)), "truncated"),
        (encoded(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), "jpeg")[:-300], "truncated"),
        (encoded(np.ones((8, 8), np.float32), "tiff"), "32 bits per pixel"),
        (encoded(np.ones((8, 8), np.int32), "tiff"), "32 bits per pixel"),
        (planar_tiff(16), "16 bits in a plane for each color"),
        (png(30_000, 30_000, 8), "900000000 pixels"),
        (png(10_000, 10_000, 8), "100000000 pixels"),
    ],
)
def test_an_image_that_cannot_be_read_says_why(content, reason):
    with pytest.raises(UnreadableFile, match=reason) as caught:
        read(content)
    assert caught.value.name == "a"
    assert "\n" not in str(caught.value)
