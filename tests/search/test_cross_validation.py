"""Cross-validation: what each fold learns from, what the folds say together, and what a kill costs."""

import csv
import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

from bloodcell_jax import cli
from bloodcell_jax.data.loading import load_data
from bloodcell_jax.errors import UsageError
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.ensemble import Ensemble
from bloodcell_jax.evaluate.metrics import METRICS, classification_metrics
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.environment import describe_environment
from bloodcell_jax.search.cross_validation import cross_validate, fold_config, spread_of
from bloodcell_jax.search.fold_run import FoldRun
from bloodcell_jax.search.soup import cook_soups, write_soup
from bloodcell_jax.weights.model_file import read_model_file
from bloodcell_jax.workdir import Workdir

FOLDS = 2


@pytest.fixture(scope="module")
def validated(small_config, tmp_path_factory):
    """Return the workdir and the content of a cross-validation of two folds."""
    workdir = tmp_path_factory.mktemp("crossval")
    return workdir, cross_validate(small_config, workdir, folds=FOLDS)


def test_folds_cover_train_and_val_once_and_never_test(small_config):
    whole = create_run(small_config).splits
    held_out = []
    for fold in range(3):
        splits = create_run(fold_config(small_config, 7, 3, fold)).splits
        np.testing.assert_array_equal(splits["test"], whole["test"])  # whatever the seed
        assert not set(splits["test"]) & (set(splits["train"]) | set(splits["val"]))
        assert not set(splits["train"]) & set(splits["val"])
        held_out.append(splits["val"])
    np.testing.assert_array_equal(np.sort(np.concatenate(held_out)), np.setdiff1d(np.arange(120), whole["test"]))


def test_a_fold_says_what_was_cut(validated, small_config):
    run = Workdir(validated[0] / "runs" / "seed_3_fold_1")
    notes = " ".join(run.read_environment()["data"]["notes"])
    assert "cut by data.splits" in notes
    assert "2 folds" in notes
    assert "Fold 1 is val" in notes
    config = fold_config(small_config, 3, 3, 0)
    parts = np.split(np.random.default_rng(0).permutation(120).astype(np.int32), [90, 105])
    given = dict(zip(("train", "val", "test"), map(np.sort, parts), strict=True))
    of_fold = create_run(config, replace(load_data(config.data), splits=given))
    assert of_fold.splits_record["by"]["given"] == ["test"]
    notes = " ".join(describe_environment(of_fold)["data"]["notes"])
    assert "kept: test." in notes
    assert "Fold 0 is val" in notes


def test_out_of_fold_answers_are_those_of_the_run_that_did_not_learn_from_the_image(validated):
    workdir, content = validated
    with (workdir / "out_of_fold.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    judged = []
    for fold in range(FOLDS):
        run = Workdir(workdir / "runs" / f"seed_3_fold_{fold}")
        with run.evaluation("val").predictions.open(newline="") as file:
            for row in csv.DictReader(file):
                assert rows[row["id"]] == row
                judged.append(row["id"])
        assert not set(judged[-len(run.read_splits()["val"]) :]) & set(map(str, run.read_splits()["train"]))
    assert sorted(judged) == sorted(rows)
    assert content["out_of_fold"]["n"] == len(rows)


def test_the_audit_takes_them(validated, cells, tmp_path):
    workdir, _ = validated
    flags = [f"--source=npz:{cells}", f"--predictions={workdir / 'out_of_fold.csv'}", f"--output={tmp_path / 'audit'}"]
    assert cli.main(["bloodcell", "audit", "--image_size=32", *flags]) == 0


def test_mean_and_deviation():
    keys = [metric.key for metric in METRICS]
    scores = [dict.fromkeys(keys, value) | {"auc_macro_ovr": None} for value in (0.5, 0.7, 0.9)]
    spread = spread_of(scores)
    assert spread["accuracy"] == {"mean": pytest.approx(0.7), "std": pytest.approx(0.2)}
    assert spread["auc_macro_ovr"] == {"mean": None, "std": None}


def test_the_ensemble_is_the_mean_of_the_folds(validated, small_config):
    workdir, content = validated
    data, ensemble = load_data(small_config.data), Ensemble.from_crossval(workdir)
    test = Workdir(workdir / "runs" / "seed_3_fold_0").read_splits()["test"]
    models = [Classifier.from_file(workdir / run["path"] / "model.safetensors") for run in content["runs"]]
    expected = np.mean([model.predict(data.images[test]) for model in models], axis=0)
    answers = ensemble.predict(data.images[test])
    np.testing.assert_allclose(answers, expected, atol=1e-6)
    scores = classification_metrics(data.labels[test], answers, data.class_names)
    assert content["ensemble"]["nll"] == pytest.approx(scores["nll"], abs=1e-5)


def test_no_soup_from_random_weights_and_the_reason(validated):
    assert "random" in validated[1]["soup"]["reason"]
    assert validated[1]["soup"]["seeds"] == []


def test_a_soup_is_the_mean_of_the_weights(validated, tmp_path):
    models = [validated[0] / run["path"] / "model.safetensors" for run in validated[1]["runs"]]
    write_soup(tmp_path / "soup.safetensors", models)
    (soup, record), parts = read_model_file(tmp_path / "soup.safetensors"), [read_model_file(m)[0] for m in models]
    assert record.calibration is None
    expected = jax.tree.map(lambda first, second: (first + second) / 2, *parts)
    jax.tree.map(lambda ours, mean: np.testing.assert_allclose(ours, mean, atol=1e-7), soup, expected)


@pytest.fixture
def fine_tuned(validated, tmp_path):
    """Return runs that say that they began with pretrained weights: what a soup is scored by stands in their files."""
    runs = []
    for fold, run in enumerate(validated[1]["runs"]):
        source, folder = Workdir(validated[0] / run["path"]), Workdir(tmp_path / "runs" / str(fold))
        folder.path.mkdir(parents=True)
        for path in (source.model, source.splits):
            shutil.copy(path, folder.path / path.name)
        config = json.loads(source.config.read_text())
        config["model"]["weights"] = "pretrained.safetensors"
        folder.config.write_text(json.dumps(config))
        runs.append(FoldRun(run["seed"], fold, folder))
    return runs


def test_a_soup_is_scored_on_test_by_the_answers_of_its_file(fine_tuned, small_config, tmp_path):
    data = load_data(small_config.data)
    cooked = cook_soups(tmp_path, data, fine_tuned)
    assert cooked["reason"] is None
    [soup] = cooked["seeds"]
    assert (soup["seed"], soup["path"]) == (3, "soup/seed_3.safetensors")
    test = fine_tuned[0].workdir.read_splits()["test"]
    answers = Classifier.from_file(tmp_path / soup["path"]).predict(data.images[test])
    expected = classification_metrics(data.labels[test], answers, data.class_names)
    assert soup["test"]["n"] == len(test) > 0
    assert soup["test"]["confusion_matrix"] == expected["confusion_matrix"]
    assert soup["test"]["nll"] == pytest.approx(expected["nll"], abs=1e-5)
    # It is another network than those that it is made of.
    for run in fine_tuned:
        alone = classification_metrics(
            data.labels[test], Classifier.from_file(run.workdir.model).predict(data.images[test]), data.class_names
        )
        assert abs(alone["nll"] - soup["test"]["nll"]) > 1e-4


def test_a_soup_without_a_test_split_has_no_score(fine_tuned, small_config, tmp_path):
    for run in fine_tuned:
        record = json.loads(run.workdir.splits.read_text())
        del record["splits"]["test"]
        run.workdir.splits.write_text(json.dumps(record))
    [soup] = cook_soups(tmp_path, load_data(small_config.data), fine_tuned)["seeds"]
    assert soup["test"] is None
    assert (tmp_path / soup["path"]).is_file()


def test_a_second_call_trains_no_finished_fold_and_the_page_names_each_run(validated, small_config):
    workdir, content = validated
    checkpoints = {path: path.stat().st_mtime_ns for path in workdir.glob("runs/*/checkpoints/*")}
    assert checkpoints
    again = cross_validate(small_config, workdir, folds=FOLDS)
    assert again == json.loads((workdir / "crossval.json").read_text()) == content
    assert checkpoints == {path: path.stat().st_mtime_ns for path in workdir.glob("runs/*/checkpoints/*")}
    page = (workdir / "index.html").read_text(encoding="utf-8")
    assert all(f"{run['path']}/report/index.html" in page for run in content["runs"])


def test_another_number_of_folds_is_refused_in_the_same_workdir(validated, small_config):
    with pytest.raises(UsageError, match=r"data\.folds: 2 -> 3"):
        cross_validate(small_config, validated[0], folds=3)
