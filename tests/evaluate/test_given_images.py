"""The classifier sees an image as `bloodcell predict` does, however it is given: path, PIL image, array, or many."""

import csv

import numpy as np
import pytest
from PIL import Image

import bloodcell_jax as bc
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.predict_files import predict_files
from bloodcell_jax.evaluate.prediction_outputs import PredictionOutputs

# Larger than the crop of 200 on both sides, on one, on none; tall, wide and square.
SIZES = ((300, 280), (280, 300), (260, 260), (260, 150), (90, 120), (32, 32))


@pytest.fixture(scope="module")
def classifier(trained):
    return bc.Classifier.from_workdir(trained)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return images whose middle, which the crop keeps, differs from their border."""
    folder, rng = tmp_path_factory.mktemp("cells"), np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        pixels[..., number % 3] += 150
        middle = slice(height // 4, -height // 4), slice(width // 4, -width // 4)
        pixels[middle] = rng.integers(0, 255, (*pixels[middle].shape[:2], 3))
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def expected(classifier, files, tmp_path_factory):
    """Return what the command line writes of the files."""
    output = tmp_path_factory.mktemp("out") / "cells.csv"
    predict_files(lambda: classifier, [str(files[0].parent)], PredictionOutputs(output), strict=True)
    with output.open(newline="") as file:
        return np.array([[float(row[name]) for name in classifier.class_names] for row in csv.DictReader(file)])


def test_files_pil_images_and_arrays_are_the_command_line_s(classifier, files, expected):
    images = [Image.open(path) for path in files]
    for given in (files, list(map(str, files)), images, [np.asarray(image) for image in images]):
        np.testing.assert_allclose(classifier.predict(given), expected, atol=2e-6)


@pytest.mark.parametrize("number", range(len(SIZES)))
def test_one_array_of_many_images_is_too(classifier, files, expected, number):
    array = np.asarray(Image.open(files[number]))
    found = classifier.predict(np.stack([array, array]))
    np.testing.assert_allclose(found, expected[[number, number]], atol=2e-6)


def test_cropped_images_are_resized_whole(classifier, files):
    images = [Image.open(path) for path in files]
    whole = [np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)) for image in images]
    for given in (files, images, [np.asarray(image) for image in images]):
        np.testing.assert_allclose(
            classifier.predict(given, cropped=True), classifier.predict(np.stack(whole)), atol=2e-6
        )
    assert abs(classifier.predict(files, cropped=True) - classifier.predict(files)).max() > 0.01


def test_modes_of_pil_images(classifier, files):
    image = Image.open(files[0])
    rgb = classifier.predict([image])
    np.testing.assert_allclose(classifier.predict([image.convert("RGBA")]), rgb, atol=2e-6)
    assert classifier.predict([image.convert("L")]).shape == (1, 3)
    with pytest.raises(DataError, match=r"^image 1: .*mode I;16"):
        classifier.predict([image, Image.fromarray(np.full((40, 40), 4000, np.uint16))])


def test_what_cannot_be_read_is_named(classifier, files, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    for bad in (tmp_path / "bad.png", tmp_path / "absent.png", str(tmp_path / "bad.png")):
        for cropped in (False, True):
            with pytest.raises(DataError, match=rf"^{bad}: "):
                classifier.predict([files[0], bad], cropped=cropped)
    with pytest.raises(UsageError, match=r"float64 \[8, 8, 3\]"):
        classifier.predict([np.zeros((8, 8, 3))])
    assert classifier.predict([]).shape == (0, 3)
