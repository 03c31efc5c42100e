"""Names of another laboratory become classes of the model, or the one that does not is named."""

import json
import logging

import numpy as np
import pytest

from bloodcell_jax.data.dataset import Dataset, index_ids
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.class_map import match_classes, parse_class_map, relabel

MODEL = ("basophil", "immature granulocyte", "neutrophil")


def test_a_class_map_is_text_or_a_file(tmp_path):
    expected = {"Basophil": "basophil", "PMN": "neutrophil", "Artifact": "drop"}
    assert parse_class_map(" Basophil=basophil, PMN = neutrophil,Artifact=drop,") == expected
    path = tmp_path / "map.JSON"
    path.write_text(json.dumps(expected | {"Smudge": None}))
    assert parse_class_map(str(path)) == expected | {"Smudge": None}
    assert parse_class_map("a=b=neutrophil") == {"a=b": "neutrophil"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "--class_map="),
        ("PMN", "PMN"),
        ("PMN=", "PMN="),
        ("=x", "=x"),
        ("a=x,a=y", "a stands"),
        ("no.json", "no.json"),
    ],
)
def test_what_is_no_map_is_refused(text, named):
    with pytest.raises(UsageError, match=named):
        parse_class_map(text)


@pytest.mark.parametrize("content", ["[]", '["a"]', '{"a": 1}', "{", '{"a": "x", "a": "y"}', '"a"', "3"])
def test_a_file_that_is_no_map_is_refused(tmp_path, content):
    (tmp_path / "map.json").write_text(content)
    if content == "[]":
        assert parse_class_map(str(tmp_path / "map.json")) == {}
        return
    with pytest.raises(UsageError, match=r"map\.json"):
        parse_class_map(str(tmp_path / "map.json"))


def test_names_match_without_case_and_blanks_and_the_pairs_are_named(caplog):
    caplog.set_level(logging.INFO)
    found = ["Basophil ", "neutrophil", "IMMATURE_granulocyte", "Immature-Granulocyte"]
    expected = dict(zip(found, ("basophil", "neutrophil", *[MODEL[1]] * 2), strict=True))
    assert match_classes(found, MODEL, {}, "folder:lab") == expected
    assert "IMMATURE_granulocyte is immature granulocyte" in caplog.text
    assert "neutrophil is neutrophil" not in caplog.text


def test_names_that_could_be_two_classes_match_neither():
    with pytest.raises(DataError, match=r"folder:lab: A_B "):
        match_classes(["A_B"], ("a b", "a-b"), {}, "folder:lab")
    assert match_classes(["a-b"], ("a b", "a-b"), {}, "folder:lab") == {"a-b": "a-b"}


def test_classes_that_nothing_names_are_refused_with_a_map_to_edit():
    found = ["Basophil", "Neutrophils", "Smudge", "PMN"]
    with pytest.raises(DataError) as caught:
        match_classes(found, MODEL, {"pmn": "Neutrophil"}, "folder:lab")
    message = str(caught.value)
    assert message.startswith("folder:lab: Neutrophils, Smudge ")
    assert all(name in message for name in MODEL)
    ready = message[message.index("--class_map=") :].removeprefix("--class_map=").strip('"')
    assert parse_class_map(ready) == {"pmn": "Neutrophil", "Neutrophils": "neutrophil", "Smudge": "drop"}
    assert set(match_classes(found, MODEL, parse_class_map(ready), "folder:lab")) == set(found)


def test_numbers_that_could_count_the_model_s_classes_get_its_map_to_edit():
    with pytest.raises(DataError) as caught:
        match_classes(["0", "2"], MODEL, {}, "csv:lab.csv")
    assert f'--class_map="0={MODEL[0]},2={MODEL[2]}"' in str(caught.value)


def test_a_ready_made_map_of_names_with_commas_is_json():
    with pytest.raises(DataError, match=r'map\.json with \{"cells, broken": "drop"\}'):
        match_classes(["cells, broken"], MODEL, {}, "folder:lab")


def test_several_classes_become_one_and_some_are_dropped():
    named = {"band": "neutrophil", "segmented": "Neutrophil", "basophil": "drop"}
    mapping = match_classes(["band", "segmented", "basophil"], MODEL, named, "folder:lab")
    assert mapping == {"band": "neutrophil", "segmented": "neutrophil", "basophil": None}


@pytest.mark.parametrize(
    ("named", "word"),
    [
        ({"absent": "basophil"}, "absent"),
        ({"PMN": "eosinophil"}, "eosinophil"),
        ({"PMN": "drop", "pmn": "drop"}, "PMN"),
    ],
)
def test_a_map_that_names_what_is_not_there_is_refused(named, word):
    with pytest.raises(UsageError, match=rf"--class_map: {word} "):
        match_classes(["PMN"], MODEL, named, "folder:lab")


def test_a_model_with_a_class_called_drop_needs_another_way():
    with pytest.raises(UsageError, match="null"):
        match_classes(["PMN"], ("drop", "keep"), {"PMN": "drop"}, "folder:lab")
    assert match_classes(["PMN"], ("drop", "keep"), {"PMN": None}, "folder:lab") == {"PMN": None}
    assert match_classes(["Drop"], ("drop", "keep"), {}, "folder:lab") == {"Drop": "drop"}


@pytest.fixture
def dataset():
    labels = np.array([0, 1, 2, 1, 0], np.int32)
    images = np.arange(5, dtype=np.uint8).repeat(12).reshape(5, 2, 2, 3)
    splits = {"test": np.array([1, 2, 4], np.int32)}
    return Dataset(images, labels, ("Junk", "PMN", "BASO"), index_ids(5), "folder:lab", splits, groups=tuple("abcde"))


def test_relabeled_images_keep_their_ids_and_groups(dataset):
    mapping = {"Junk": None, "PMN": "neutrophil", "BASO": "basophil"}
    relabeled, indices = relabel(dataset, dataset.splits["test"], mapping, MODEL)
    assert relabeled.class_names == MODEL
    assert relabeled.labels.tolist() == [2, 0, 2]
    assert relabeled.ids == ("1", "2", "3")
    assert relabeled.groups == ("b", "c", "d")
    assert indices.tolist() == [0, 1]
    assert relabeled.images[indices, 0, 0, 0].tolist() == [1, 2]


def test_a_split_without_an_image_left_is_refused(dataset):
    with pytest.raises(DataError, match="no image is left"):
        relabel(dataset, np.array([0, 4]), {"Junk": None, "PMN": "neutrophil", "BASO": "basophil"}, MODEL)
