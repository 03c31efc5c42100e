"""Files changed at random are read or refused in one line, never with a traceback."""

import io
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.data.sources import load_source
from bloodcell_jax.errors import UserError

FORMATS = ("png", "jpeg", "tiff", "gif", "webp", "bmp")


def encoded(image, file_format):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, file_format)
    return buffer.getvalue()


def write_zip(path, rng):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "ab":
            for i, file_format in enumerate(FORMATS):
                image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                archive.writestr(f"{name}/{i}.{file_format}", encoded(image, file_format))


def write_npz(path, rng):
    np.savez(path, images=rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8), labels=np.arange(8) % 2)


def write_medmnist(path, rng):
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(8) % 2)[:, None]
    np.savez(path, **arrays)


@pytest.mark.parametrize(("kind", "write"), [("zip", write_zip), ("npz", write_npz), ("medmnist", write_medmnist)])
def test_any_file_is_read_or_refused_in_one_line(tmp_path, kind, write):
    rng = np.random.default_rng(0)
    path = tmp_path / ("cells.zip" if kind == "zip" else "cells.npz")
    write(path, rng)
    whole, refusals = path.read_bytes(), []
    for number in range(150):
        content = bytearray(whole)
        # The directory at the end of the file is small and decides most.
        first = max(0, len(whole) - 1200) if number % 3 == 0 else 0
        for position in rng.integers(first, len(whole), rng.integers(1, 6)):
            content[position] = rng.integers(256)
        path.write_bytes(content[: rng.integers(len(content))] if number % 3 == 1 else content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow and NumPy warn of damage that they read all the same.
                load_source(f"{kind}:{path}", image_size=16, skip_bad=True)
        except UserError as error:
            refusals.append(str(error))
    assert len(refusals) > 50
    assert all(len(text.splitlines()) == 1 for text in refusals)
