"""Image files from anywhere: each is read, or is a bad image with a reason of one line, at once."""

import io
import logging
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.data.file_trees import UnreadableFile
from bloodcell_jax.data.geometry import Geometry
from bloodcell_jax.data.image_files import decode

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
FORMATS = ("png", "jpeg", "tiff", "gif", "webp", "bmp", "ppm", "tga", "pcx", "sgi")


def encoded(kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def reason(content):
    """Return why a file cannot be read, or nothing if it can; either comes soon."""
    start, why = time.process_time(), ""
    try:
        decode(content, "a", Geometry(16))
    except UnreadableFile as error:
        why = error.reason
    assert time.process_time() - start < 10
    assert len(why.splitlines()) <= 1
    return why


def tiff_of(pages):
    """Return a TIFF in which every page is the same 4 x 4 gray pixels."""
    content = bytearray(b"II*\0" + struct.pack("<I", 24) + bytes(range(0, 160, 10)))
    tags = [(256, 4), (257, 4), (258, 8), (259, 1), (262, 1), (273, 8), (278, 4), (279, 16)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    for i in range(pages):
        following = len(content) + 2 + len(entries) + 4 if i < pages - 1 else 0
        content += struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
    return bytes(content)


def test_a_tiff_of_50_000_pages_gives_its_first_at_once(caplog):
    with caplog.at_level(logging.INFO, "bloodcell_jax"):
        assert not reason(tiff_of(50_000))
    assert caplog.messages == ["a: more than 10 frames; the first is taken"]
    caplog.clear()
    with caplog.at_level(logging.INFO, "bloodcell_jax"):
        assert not reason(tiff_of(10))
    assert caplog.messages == ["a: 10 frames; the first is taken"]


def test_pages_that_follow_themselves_are_no_loop():
    content = tiff_of(2)
    assert len(reason(content[:-4] + struct.pack("<I", 24))) < 200


def test_a_jpeg_of_many_scans_is_refused():
    content = encoded("jpeg", progressive=True)
    scan = content[content.rfind(b"\xff\xda") :][:10]
    assert reason(content[:-2] + scan * 20_000 + b"\xff\xd9").startswith("20,0")


def png_with(kind, data):
    content = encoded("png")
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return content[:33] + chunk + content[33:]


BOMB = zlib.compress(bytes(2**26), 9)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (b"zTXt", b"a\0\0" + BOMB),
        (b"iTXt", b"a\0\1\0\0\0" + BOMB),
        (b"iCCP", b"a\0\0" + BOMB),
        (b"iCCP", b"a\0\0" + zlib.compress(b"no profile")),
        (b"eXIf", b"II*\0" + struct.pack("<IH", 8, 65535) + bytes(range(256)) * 64),
        (b"eXIf", b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x8769, 4, 1, 8) + bytes(4)),
        (b"tEXt", b"a" * 2**20),
        (b"tEXt", b"XML:com.adobe.xmp\0" + b'tiff:Orientation="' * 50_000),
    ],
)
def test_what_stands_beside_the_pixels_harms_nothing(kind, data):
    reason(png_with(kind, data))


def test_an_image_that_claims_too_many_pixels_is_refused():
    content = bytearray(encoded("png"))
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    assert "bomb" in reason(bytes(content))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_beginning_of_a_file_is_read_or_refused(kind):
    content = encoded(kind)
    refused = [bool(reason(content[:length])) for length in range(0, len(content), 1 + len(content) // 60)]
    assert refused[0]
    assert sum(refused) > 20
