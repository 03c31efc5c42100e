"""`data.class_names` on a source that knows its names: another order moves no image to another class."""

import numpy as np
import pytest

from bloodcell_jax.data.class_order import in_given_order
from bloodcell_jax.data.medmnist import BLOOD_CLASSES
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.data.tfds_sets import prepare
from bloodcell_jax.errors import DataError

LABELS = np.array([0, 0, 1, 2, 2, 2], np.int32)
STORED = ("basophil", "ig", "platelet")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ((), "bbippp"),
        (("platelet", "basophil", "ig"), "bbippp"),
        (("Platelet", "IG", "Basophil"), "BBIPPP"),
        (("red", "green", "blue"), "rrgbbb"),
        (("basophil", "green", "platelet"), "bbgppp"),
    ],
)
def test_a_label_keeps_its_class(given, named):
    labels, names = in_given_order(LABELS, STORED, given, "source")
    assert "".join(names[label][0] for label in labels) == named
    assert names == (given or STORED)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("platelet", "basophil", "x"), ("basophil is platelet", "ig is basophil")),
        (("x", "y", "ig"), ("platelet is ig",)),
        (("basophil", "platelet"), ("3 classes", "has 2")),
    ],
)
def test_names_that_can_be_read_in_two_ways_are_refused(given, words):
    with pytest.raises(DataError) as caught:
        in_given_order(LABELS, STORED, given, "source")
    for word in words:
        assert word in str(caught.value)


def test_a_prepared_dataset_is_the_source_in_any_order(tmp_path):
    source = load_source("synthetic:24", image_size=16)
    name = prepare(source, tmp_path, "cells")
    names = source.class_names[::-1]
    again = load_source(f"tfds:{name}", image_size=16, data_dir=str(tmp_path), class_names=names)
    assert [again.class_names[i] for i in again.labels] == [source.class_names[i] for i in source.labels]
    assert again.sha256() != source.sha256()


def test_a_published_set_is_read_in_any_order(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    arrays = {f"{split}_images": images for split in ("train", "val", "test")}
    arrays |= {f"{split}_labels": np.arange(8, dtype=np.uint8)[:, None] for split in ("train", "val", "test")}
    np.savez(tmp_path / "bloodmnist.npz", **arrays)
    source = f"medmnist:{tmp_path / 'bloodmnist.npz'}"
    data = load_source(source, image_size=16, class_names=BLOOD_CLASSES[::-1])
    assert [data.class_names[i] for i in data.labels[:8]] == list(BLOOD_CLASSES)
