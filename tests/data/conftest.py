"""Manifests to read: what every file of tests about them needs."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.data.sources import load_source
from bloodcell_jax.errors import DataError


def plant(root, *names):
    """Write an image of noise at every path, no two alike."""
    for number, name in enumerate(names):
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(target, None if target.suffix.strip() in Image.EXTENSION else "PNG")


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return f"csv:{path}"


def read(source, **options):
    """Read a source as a run does: once as the user says, and again with the names of the classes that it found."""
    data = load_source(str(source), image_size=16, **options)
    again = load_source(str(source), image_size=16, **options | {"class_names": data.class_names})
    assert (again.class_names, again.sha256()) == (data.class_names, data.sha256())
    return data


def understood(data):
    """Return id -> (class, split) of a dataset."""
    split_of = {int(i): name for name, indices in data.splits.items() for i in indices}
    return {
        name: (data.class_names[label], split_of.get(i, ""))
        for i, (name, label) in enumerate(zip(data.ids, data.labels, strict=True))
    }


def refused(source, *words, error=DataError, **options):
    with pytest.raises(error) as caught:
        read(source, **options)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def manifest():
    """Return functions that make images and manifests, read them, and say what was understood or refused."""
    return SimpleNamespace(plant=plant, write=write, read=read, refused=refused, understood=understood)


@pytest.fixture
def four_images(tmp_path):
    """Return a folder of four images."""
    plant(tmp_path, "a.png", "b.png", "sub/c.png", "d.png")
    return tmp_path
