"""Runs side by side: paired where both judged the same images, refused where not, and warned of where unfair."""

import csv
import json

import numpy as np
import pytest
from scipy.stats import binomtest

from bloodcell_jax.config import Config, DataConfig, StageConfig, to_dict
from bloodcell_jax.data.dataset import Dataset, index_ids
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.answers import Answers
from bloodcell_jax.evaluate.compare_runs import compare_runs
from bloodcell_jax.evaluate.outputs import write_split
from bloodcell_jax.workdir import Workdir

NAMES = ("basophil", "ig", "platelet")
N = 300


@pytest.fixture
def make_run(tmp_path):
    """Return a function that writes the files of an evaluated run, and returns its folder."""

    def make_run(name, *, seed, config=None, val=range(N), train=range(N, 2 * N), ids=None, groups=None, data="ab12"):
        run = Workdir(tmp_path / name)
        run.path.mkdir(parents=True)
        config = config or Config(data=DataConfig(source="npz:cells.npz", class_names=NAMES))
        run.config.write_text(json.dumps(to_dict(config)))
        splits = {"train": list(train), "val": list(val)}
        run.splits.write_text(json.dumps({"sha256": "x", "splits": splits}))
        run.environment.write_text(json.dumps({"started": "2025-03-02", "data": {"sha256": data, "n": 2 * N}}))
        labels = np.arange(2 * N, dtype=np.int32) % 3
        logits = np.random.default_rng(seed).normal(size=(2 * N, 3)) + 2 * np.eye(3)[labels]
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        images = np.zeros((2 * N, 4, 4, 3), np.uint8)
        dataset = Dataset(images, labels, NAMES, ids or index_ids(2 * N), "npz:cells.npz", groups=groups)
        judged = np.array(val)
        answers = Answers(probabilities[judged])
        write_split(run.evaluation("val"), dataset, judged, answers, step=7, calibration=None, holds_val=False)
        return run.path

    return make_run


def _right(run):
    with (run / "eval" / "val" / "predictions.csv").open(newline="") as file:
        return np.array([row["label"] == row["predicted"] for row in csv.DictReader(file)])


def test_runs_that_judged_the_same_images_are_compared_in_pairs(make_run):
    first, second = make_run("a", seed=1), make_run("b", seed=2)
    comparison = compare_runs([first, second])
    assert comparison.split == "val"
    assert [run.name for run in comparison.runs] == ["a", "b"]
    assert comparison.class_names == list(NAMES)
    assert comparison.warnings == []
    assert comparison.differences == []
    (pair,) = comparison.pairs
    a, b = _right(first), _right(second)
    assert pair.note is None
    assert pair.result.n == N
    assert pair.result.difference == pytest.approx(b.mean() - a.mean())
    assert (pair.result.only_first, pair.result.only_second) == ((a & ~b).sum(), (b & ~a).sum())
    assert pair.result.p_value == pytest.approx(binomtest(int((a & ~b).sum()), int((a != b).sum())).pvalue)
    low, high = pair.result.interval
    assert low < pair.result.difference < high


def test_only_fields_that_differ_are_listed(make_run):
    one = Config(data=DataConfig(source="npz:cells.npz", class_names=NAMES), seed=1)
    two = Config(data=DataConfig(source="npz:cells.npz", class_names=NAMES), seed=2)
    two.stages = [*one.stages, StageConfig(name="more", steps=5)]
    comparison = compare_runs([make_run("a", seed=1, config=one), make_run("b", seed=2, config=two)])
    differences = dict(comparison.differences)
    assert differences["seed"] == ["1", "2"]
    assert differences["stages[1].steps"] == ["–", "5"]
    assert differences["stages[1].epochs"] == ["–", "none"]
    assert {name.partition(".")[0] for name in differences} == {"seed", "stages[1]"}


def test_other_images_or_labels_give_no_paired_numbers(make_run):
    first = make_run("a", seed=1)
    (pair,) = compare_runs([first, make_run("b", seed=2, val=range(100, N))]).pairs
    assert pair.result is None
    assert "300 and 200, 200 ids in common" in pair.note
    path = make_run("c", seed=2) / "eval" / "val" / "predictions.csv"
    path.write_text(path.read_text().replace("\n7,ig,", "\n7,platelet,", 1))
    (pair,) = compare_runs([first, path.parents[2]]).pairs
    assert pair.result is None
    assert "1 of 300 images have different labels" in pair.note
    path.unlink()
    (pair,) = compare_runs([first, path.parents[2]]).pairs
    assert pair.result is None
    assert "predictions.csv" in pair.note


def test_numbers_of_two_sources_are_not_the_same_images(make_run):
    first = make_run("a", seed=1)
    elsewhere = Config(data=DataConfig(source="npz:other.npz", class_names=NAMES))
    (pair,) = compare_runs([first, make_run("b", seed=2, config=elsewhere, data="cd34")]).pairs
    assert pair.result is None
    assert "numbers" in pair.note
    # The same source in another size: other pixels, the same images.
    small = Config(data=DataConfig(source="npz:cells.npz", class_names=NAMES, image_size=64))
    comparison = compare_runs([first, make_run("c", seed=2, config=small, data="cd34")])
    assert comparison.pairs[0].result.n == N
    assert "hashes differ" in comparison.pairs[0].note
    assert comparison.warnings == []
    files = tuple(f"ig/{i}.png" for i in range(2 * N))
    runs = [make_run(name, seed=1, ids=files, data=name, config=elsewhere) for name in ("d", "e")]
    assert compare_runs(runs).pairs[0].result.n == N


def test_a_run_that_learned_from_images_that_judge_the_other_is_named(make_run):
    first = make_run("a", seed=1)
    second = make_run("b", seed=2, val=range(N), train=range(250, 2 * N))
    third = make_run("c", seed=3, val=range(500, 2 * N), train=range(500))
    (warning,) = compare_runs([first, second]).warnings
    assert "50 of 300 val images of a were in train of b" in warning
    said = " ".join(compare_runs([first, third]).warnings)
    assert "300 of 300 val images of a were in train of c" in said
    assert "100 of 100 val images of c were in train of a" in said
    (third / "splits.json").unlink()
    (warning,) = compare_runs([first, third]).warnings
    assert "splits.json" in warning


def test_images_of_patients_are_resampled_by_patient_and_have_no_mcnemar_test(make_run):
    groups = tuple(f"patient {i // 10}" for i in range(2 * N))
    first, second = make_run("a", seed=1, groups=groups), make_run("b", seed=2, groups=groups)
    (pair,) = compare_runs([first, second]).pairs
    assert (pair.result.n_groups, pair.result.p_value) == (30, None)
    assert pair.result.interval is not None
    # An evaluation of an earlier version did not record which image is of which patient.
    (second / "eval" / "val" / "example_groups.csv").unlink()
    (pair,) = compare_runs([first, second]).pairs
    assert pair.result is None
    assert "groups" in pair.note


def test_folders_of_one_name_are_told_apart_by_their_paths(make_run):
    runs = [make_run("x/run", seed=1), make_run("y/run", seed=2)]
    assert [run.name for run in compare_runs(runs).runs] == list(map(str, runs))


def test_wrong_folders_are_named(make_run, tmp_path):
    first = make_run("a", seed=1)
    with pytest.raises(UsageError, match="one run alone"):
        compare_runs([first])
    with pytest.raises(UsageError, match="absent: no such folder"):
        compare_runs([first, tmp_path / "absent"])
    (tmp_path / "link").symlink_to(first)
    with pytest.raises(UsageError, match=r"link: is the same folder as .*/a"):
        compare_runs([first, tmp_path / "link"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty/config\.json: no such file"):
        compare_runs([first, tmp_path / "empty"])
    second = make_run("b", seed=2)
    (second / "eval" / "val").rename(second / "eval" / "test")
    with pytest.raises(DataError, match=r"a: val; .*b: test"):
        compare_runs([first, second])
