"""`POST /explain` and `POST /neighbors` say what the classifier and the evaluation of a run say."""

import numpy as np
import pytest

import bloodcell_jax as bc
from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.training_images import training_images
from bloodcell_jax.workdir import Workdir


def test_the_maps_are_those_of_the_classifier(server, pixels, png):
    reply = server.post("/explain", ("a.png", png(pixels[3]))).json()
    expected = server.served.classifier.explain(pixels[3:4])
    assert reply["class"] == server.served.classifier.class_names[expected.classes[0]]
    np.testing.assert_allclose(reply["occlusion"], expected.occlusion[0], atol=1e-4)
    np.testing.assert_allclose(reply["grad_cam"], expected.grad_cam[0], atol=1e-4)
    other = server.post("/explain?class=blue", ("a.png", png(pixels[3]))).json()
    assert other["class"] == "blue"
    assert server.post("/explain", ("a.png", b"no image")).status_code == 422
    assert server.post("/explain", ("a.png", png(pixels[0])), ("b.png", png(pixels[1]))).status_code == 400


def test_the_nearest_training_cell_of_a_training_cell_is_itself(server, trained, pixels, png):
    number = int(Workdir(trained).read_splits()["train"][0])
    reply = server.post("/neighbors", ("a.png", png(pixels[number]))).json()
    assert reply["without"] is None
    first, *others = reply["neighbors"]
    assert first["id"] == str(number)
    assert first["distance"] < 0.02
    assert len(others) == 2
    assert server.post("/neighbors", ("a.png", b"no image")).status_code == 422


def test_a_model_without_its_run_says_why_it_has_no_training_cells(trained):
    with pytest.raises(DataError, match="--workdir"):
        training_images(bc.Classifier.from_file(trained / "model.safetensors"))
