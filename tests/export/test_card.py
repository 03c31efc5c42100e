"""What a card says of the images is what the model was trained on."""

import pytest

from bloodcell_jax.config import Config, DataConfig, ModelConfig
from bloodcell_jax.export.card import card, facts
from bloodcell_jax.export.trained_model import TrainedModel
from bloodcell_jax.weights import WeightsInfo
from bloodcell_jax.weights.model_file import ModelRecord

CLASS_NAMES = ("band", "blast")


def trained_on(**geometry):
    data = DataConfig(source="csv:cells.csv", image_size=32, class_names=CLASS_NAMES, **geometry)
    model = ModelConfig(variant="test_convnext2", mean=(0.5,) * 3, std=(0.2,) * 3)
    record = ModelRecord(Config(data=data, model=model), 7, {}, "1")
    return TrainedModel({}, record, WeightsInfo("test_convnext2", 2))


@pytest.mark.parametrize(
    ("geometry", "words"),
    [
        ({"crop": "auto"}, ("360 pixels", "200 pixels")),
        ({"crop": 24}, ("24 pixels",)),
        ({"crop": 0.5}, ("0.5",)),
        ({"crop": None}, ("largest centered square",)),
        ({"crop": "auto", "microns_per_pixel": 0.25}, ("200 pixels of 0.1 micrometers", "0.25 micrometers per pixel")),
        # A column gives each file a scale of its own: no file was cropped by its size in pixels.
        ({"crop": "auto", "microns_per_pixel": "um"}, ("200 pixels of 0.1 micrometers", "`um`", "its own scale")),
        ({"crop": 120, "microns_per_pixel": "um"}, ("120 pixels of 0.1 micrometers", "`um`", "its own scale")),
    ],
)
def test_the_crop_is_that_of_training(geometry, words):
    model = trained_on(**geometry)
    text = card(model, "use")
    for word in words:
        assert word in text
    assert ("360" in text) == (geometry == {"crop": "auto"})
    said = facts(model)["geometry"]
    assert {name: said[name] for name in ("image_size", "crop", "microns_per_pixel")} == {
        "image_size": 32,
        "microns_per_pixel": None,
    } | geometry


def test_a_name_of_a_column_cannot_write_into_the_card():
    model = trained_on(microns_per_pixel="u\nm")
    assert "u\nm" not in card(model, "use")
