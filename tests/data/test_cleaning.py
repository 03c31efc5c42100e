"""clean.json leaves out the examples that it names, restores those deleted from it, and refuses other data."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import bloodcell_jax as bc
from bloodcell_jax.config import Config
from bloodcell_jax.data.cleaning import Removal, clean_file, remove_rows
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.evaluate_source import evaluate_source
from bloodcell_jax.run.create import create_run
from bloodcell_jax.workdir.json_files import read_json, write_json

rng = np.random.default_rng(0)
DATA = Dataset(
    images=rng.integers(0, 256, (10, 16, 16, 3), dtype=np.uint8),
    labels=np.array([0, 1] * 5, np.int32),
    class_names=("a", "b"),
    ids=tuple(f"x/{i}.png" for i in range(10)),
    source="folder:x",
    splits={"train": np.array([0, 1, 2, 5, 6], np.int32), "val": np.array([3, 7, 8, 9], np.int32)},
)
REMOVED = [Removal(i, DATA.ids[i], "duplicate", "equal to another") for i in (1, 3, 8)]


@pytest.fixture
def clean(tmp_path):
    """Return a function that writes clean.json with changes to its content, and returns its path."""

    def write(**changes):
        write_json(tmp_path / "clean.json", clean_file(DATA, DATA.sha256(), REMOVED) | changes)
        return tmp_path / "clean.json"

    return write


def test_the_named_rows_are_left_out_everywhere(clean):
    left = remove_rows(DATA, clean())
    kept = [0, 2, 4, 5, 6, 7, 9]
    np.testing.assert_array_equal(left.images, DATA.images[kept])
    np.testing.assert_array_equal(left.labels, DATA.labels[kept])
    assert left.ids == tuple(DATA.ids[i] for i in kept)
    # Each split holds the same images as before, without the removed ones.
    ids = {name: [left.ids[i] for i in indices] for name, indices in left.splits.items()}
    assert ids == {name: [f"x/{i}.png" for i in rows] for name, rows in {"train": [0, 2, 5, 6], "val": [7, 9]}.items()}
    assert left.splits["val"].dtype == np.int32


def test_a_deleted_entry_is_restored(clean):
    path = clean()
    content = json.loads(path.read_text())
    del content["remove"][1]
    path.write_text(json.dumps(content))
    assert DATA.ids[3] in remove_rows(DATA, path).ids
    assert remove_rows(DATA, clean(remove=[])).sha256() == DATA.sha256()


def test_a_split_that_loses_all_examples_is_gone(clean):
    entries = [{"index": i} for i in (3, 7, 8, 9)]
    assert list(remove_rows(DATA, clean(remove=entries)).splits) == ["train"]


def test_other_data_are_refused_with_both_values(clean):
    changed = DATA.images.copy()
    changed[4, 0, 0, 0] ^= 1
    other = dataclasses.replace(DATA, images=changed)
    with pytest.raises(DataError) as error:
        remove_rows(other, clean())
    assert f"n 10, sha256 {DATA.sha256()}" in str(error.value)
    assert f"folder:x has n 10, sha256 {other.sha256()}" in str(error.value)
    with pytest.raises(DataError, match=r"clean\.json: .*\bn 9, sha256"):
        remove_rows(DATA, clean(n=9))
    with pytest.raises(DataError, match=r"\bimage_size=96\b.*--image_size=16\b"):
        remove_rows(DATA, clean(image_size=96, sha256="0" * 64))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[]", "no list remove"),
        ('{"remove": 3}', "no list remove"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_no_clean_json_is_refused(tmp_path, content, said):
    path = tmp_path / "clean.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError) as error:
        remove_rows(DATA, path)
    assert str(error.value).startswith(f"data.clean={path}: ")
    assert said in str(error.value)


@pytest.mark.parametrize("index", [None, 10, -1, "3", True, 2.0])
def test_an_entry_without_an_example_is_refused(clean, index):
    with pytest.raises(DataError, match=r"remove\[0\]: .*index from 0 to 9\b"):
        remove_rows(DATA, clean(remove=[{"index": index}]))
    with pytest.raises(DataError, match=r"remove\[0\]: .*index from 0 to 9\b"):
        remove_rows(DATA, clean(remove=[3]))


def test_an_entry_with_the_id_of_another_example_is_refused(clean):
    with pytest.raises(DataError, match=r"remove\[0\]: .*\b2 is x/2\.png, not x/3\.png"):
        remove_rows(DATA, clean(remove=[{"index": 2, "id": "x/3.png"}]))


def test_training_leaves_out_the_examples_that_the_audit_names(tmp_path):
    images = rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(60) % 3
    images[50:56], labels[50:56] = images[7], np.arange(6) % 3
    images[58] = images[40]
    labels[58] = labels[40]
    np.savez(tmp_path / "cells.npz", images=images, labels=labels)
    data = bc.load_source(f"npz:{tmp_path / 'cells.npz'}", image_size=32)
    found = bc.audit(data)
    removed = [7, *range(50, 56), 58]
    assert [removal.index for removal in found.removals] == removed
    write_json(tmp_path / "clean.json", clean_file(data, found.sha256, found.removals))

    config = Config()
    config.data.source, config.data.image_size = data.source, 32
    config.model.variant, config.train.batch_size = "test_convnext2", 8
    whole = create_run(config)
    config.data.clean = str(tmp_path / "clean.json")
    run = create_run(config)
    seen = sorted(run.dataset.ids[i] for indices in run.splits.values() for i in indices)
    assert seen == sorted(str(i) for i in range(60) if i not in removed)
    assert run.data_hash != whole.data_hash, "a run does not resume on other rows"
    assert run.config.data.clean == config.data.clean


def test_evaluation_leaves_out_what_training_did(trained, cells, tmp_path):
    # The data of the run get three duplicates, and clean.json names them: the rest is the data that the run trained on.
    with np.load(cells) as archive:
        images, labels = (np.concatenate([archive[key], archive[key][:3]]) for key in ("images", "labels"))
    np.savez(tmp_path / "cells.npz", images=images, labels=labels)
    data = bc.load_source(f"npz:{tmp_path / 'cells.npz'}", image_size=32)
    found = bc.audit(data)
    assert [removal.index for removal in found.removals] == [120, 121, 122]
    write_json(tmp_path / "clean.json", clean_file(data, found.sha256, found.removals))
    workdir = shutil.copytree(trained, tmp_path / "run")
    config = read_json(workdir / "config.json")
    config["data"] |= {"source": data.source, "clean": str(tmp_path / "clean.json")}
    write_json(workdir / "config.json", config)
    classifier = Classifier.from_workdir(workdir)
    _, metrics, _ = evaluate_source(classifier, None, "test", None)
    assert metrics["n"] == 18
    classifier.config.data.clean = None
    with pytest.raises(
        DataError, match=r"npz:\S*cells\.npz: not the data .*\(sha256 [0-9a-f]{12}, then [0-9a-f]{12}\)"
    ):
        evaluate_source(classifier, None, "test", None)
