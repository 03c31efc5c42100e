"""Images and HDF5 files changed at random: C libraries read them, which may crash, loop or take memory."""

import io
import os

import h5py
import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.data.geometry import Geometry
from bloodcell_jax.data.image_files import SUFFIXES, decode
from bloodcell_jax.weights import h5_reader
from bloodcell_jax.weights.files import read_file

MINUTES = float(os.environ.get("FUZZ_MINUTES", 20))
# Saved by Pillow with these options; a format that this Pillow does not write is left out.
IMAGES = {
    "png": ({}, {"save_all": True}),
    "jpeg": ({}, {"progressive": True}, {"exif": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\3\0\0\0\0\0\0\0"}),
    "gif": ({}, {"save_all": True}),
    "tiff": ({}, {"save_all": True}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}),
    "webp": ({}, {"lossless": True}, {"save_all": True}),
    "bmp": ({},),
    "ppm": ({},),
    "tga": ({"compression": "tga_rle"},),
    "pcx": ({},),
    "sgi": ({},),
    "jpeg2000": ({},),
    "avif": ({},),
    "qoi": ({},),
}


def image_seeds():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    frames = [Image.fromarray(frame) for frame in pixels]
    Image.init()
    for kind, settings in IMAGES.items():
        for options in settings if kind.upper() in Image.SAVE else ():
            more = {"append_images": frames[1:]} if options.get("save_all") else {}
            buffer = io.BytesIO()
            frames[0].save(buffer, kind, **options, **more)
            yield buffer.getvalue()


def images(tmp_path, monkeypatch):
    assert ".png" in SUFFIXES
    return lambda path: decode(path.read_bytes(), "a", Geometry(8)), "image", list(image_seeds())


def read_tensors(path):
    for tensor in read_file(path).tensors.values():
        if tensor.dtype.kind == "f":
            np.array(tensor).sum()


def hdf5(tmp_path, monkeypatch):
    monkeypatch.setattr(h5_reader, "_SECONDS", 1)
    monkeypatch.setattr(h5_reader, "_PATIENCE", 60)  # Other tests may keep all cores busy.
    seeds = []
    for version in ("earliest", "latest"):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w", libver=version) as file:
            for i in range(3):
                file[f"l{i}/l{i}/kernel:0"] = np.ones((2, 2), np.float32)
                file[f"l{i}"].attrs["weight_names"] = [f"l{i}/kernel:0".encode()]
            file.create_dataset("packed", data=np.zeros(64, np.float32), compression="gzip", shuffle=True)
            if version == "latest":
                file.attrs["layer_names"] = [b"l0", b"l1", b"l2"]
        seeds.append(buffer.getvalue())
    return read_tensors, "w.h5", seeds


# Library -> inputs in the ordinary suite. A process is started for each HDF5 file.
LIBRARIES = {images: 1000, hdf5: 20}
# A changed header may claim 89 million pixels, which Pillow allows.
SETTINGS = {images: {"limits": (30, 2048)}, hdf5: {"watch": False}}
each_library = pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.__name__)


@each_library
def test_a_changed_file_is_read_or_refused_in_one_line(library, tmp_path, monkeypatch, fuzz):
    count = LIBRARIES[library]
    assert fuzz(*library(tmp_path, monkeypatch), count=count, **SETTINGS[library]) == count


@pytest.mark.fuzz
@pytest.mark.timeout(0)
@each_library
def test_changed_files_for_minutes(library, tmp_path, monkeypatch, fuzz):
    assert fuzz(*library(tmp_path, monkeypatch), seconds=60 * MINUTES, **SETTINGS[library]) > 10 * MINUTES
