"""The report's table: what its runs learn from and are tested on, its numbers and sentences, its page, resuming."""

import json
import logging
from dataclasses import replace

import jax
import numpy as np
import pytest
from markupsafe import escape

from bloodcell_jax.config import DataConfig, validate
from bloodcell_jax.data.audit.findings import audit
from bloodcell_jax.data.dataset import Dataset, index_ids
from bloodcell_jax.data.image_files import encode_png
from bloodcell_jax.data.loading import load_data
from bloodcell_jax.data.synthetic import draw_cells
from bloodcell_jax.errors import UsageError
from bloodcell_jax.models.registry import create_model, param_shapes
from bloodcell_jax.report.table1_page import write_table1_page
from bloodcell_jax.table1.findings import findings
from bloodcell_jax.table1.results import QUESTIONS, Question, comparisons_of, questions_from, scores_of
from bloodcell_jax.table1.rows import BASE, ROWS, Entry, entries
from bloodcell_jax.table1.settings import FULL, QUICK, find_start
from bloodcell_jax.table1.table import train_table
from bloodcell_jax.table1.table_data import cut, prepare_data
from bloodcell_jax.weights import save_weights
from bloodcell_jax.weights.catalog import CATALOG
from bloodcell_jax.weights.info import variant_info

SIDE, PLANTED = 32, 24


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return the path of 240 synthetic cells of 8 classes, and 24 copies of one of them under all labels."""
    images, labels = draw_cells(240, size=SIDE)[:2]
    path = tmp_path_factory.mktemp("source") / "cells.npz"
    images = np.concatenate([images, np.repeat(images[:1], PLANTED, 0)])
    np.savez(path, images=images, labels=np.concatenate([labels, np.arange(PLANTED) % 8]))
    return path


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    return prepare_data(DataConfig(source=f"npz:{source}", image_size=SIDE), tmp_path_factory.mktemp("data"))


def test_all_runs_are_tested_on_the_same_images_and_none_of_them_is_planted(prepared):
    raw, cleaned = (load_data(DataConfig(**prepared.reading(cleaned=cleaned))) for cleaned in (False, True))
    assert len(raw) - len(cleaned) == PLANTED + 1  # the copies, and the cell that was copied
    assert prepared.facts["removed"] == {"planted": PLANTED + 1}
    for part in ("images", "labels"):
        ours, theirs = (getattr(data, part)[data.splits["test"]] for data in (raw, cleaned))
        np.testing.assert_array_equal(ours, theirs)
    found = audit(raw)
    learned = {split: np.isin([each.index for each in found.removals], raw.splits[split]).sum() for split in raw.splits}
    assert learned["test"] == 0
    assert learned["train"] > learned["val"] > 0  # dealt out as the images are
    assert not audit(cleaned).removals
    counts = [prepared.smallest_class(cleaned=cleaned) for cleaned in (False, True)]
    assert counts == [data.class_counts(data.splits["train"]).min() for data in (raw, cleaned)]


def test_another_source_is_refused_and_the_same_one_is_not_audited_again(prepared, source, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        again = prepare_data(DataConfig(source=f"npz:{source}", image_size=SIDE), prepared.folder)
    assert again == prepared
    assert "audit" not in caplog.text
    images, labels = draw_cells(48, size=SIDE)[:2]
    np.savez(tmp_path / "other.npz", images=images, labels=labels)
    with pytest.raises(UsageError, match=r"data\.json: made from npz:.*cells\.npz.*other\.npz"):
        prepare_data(DataConfig(source=f"npz:{tmp_path / 'other.npz'}", image_size=SIDE), prepared.folder)


def test_other_names_of_the_classes_are_refused(tmp_path):
    images, labels = draw_cells(80, size=SIDE)[:2]
    np.savez(tmp_path / "cells.npz", images=images, labels=labels)
    config = DataConfig(source=f"npz:{tmp_path / 'cells.npz'}", image_size=SIDE)
    prepare_data(config, tmp_path / "data")
    with pytest.raises(UsageError, match=r"classes 0, 1, .* now a, b, .*--class_names"):
        prepare_data(replace(config, class_names=tuple("abcdefgh")), tmp_path / "data")


def test_from_random_weights_nothing_is_said_to_be_unfrozen():
    changed = set(QUESTIONS) - set(questions_from(None))
    assert [question.second for question in changed] == ["full-unfreeze-raw"]
    assert not any("nfrozen, with" in question.about for question in questions_from(None))
    assert questions_from("weights.safetensors") == QUESTIONS


def test_splits_of_the_source_stay_and_its_test_loses_what_nobody_can_be_right_on():
    images, labels = draw_cells(48, size=SIDE)[:2]
    images[[0, 40]], labels[[0, 40]] = images[20], (0, 1)  # one image in train, val and test, under two labels
    parts = {"train": np.arange(20), "val": np.arange(20, 30), "test": np.arange(30, 48)}
    dataset = Dataset(images, labels.astype(np.int32), index_ids(8), index_ids(48), "npz:x", splits=parts)
    found = audit(dataset)
    removals, copies = found.removals, [cluster.indices for cluster in found.clusters]
    assert {0, 20, 40} <= {removal.index for removal in removals}
    cut_data, moved = cut(dataset, removals, copies, fractions=(0.7, 0.15, 0.15), seed=0)
    assert [len(cut_data.splits[name]) for name in parts] == [20, 10, 18 - sum(r.index >= 30 for r in removals)]
    np.testing.assert_array_equal(cut_data.images[cut_data.splits["train"]], images[:20])
    assert {0, 20} <= {removal.index for removal in moved}
    assert all(removal.index < 30 and removal.id == str(removal.index) for removal in moved)


def test_no_copy_of_a_test_image_is_learned_from():
    images, labels = draw_cells(120, size=SIDE)[:2]
    images = np.concatenate([images, images[:60, :, ::-1]])
    labels = np.concatenate([labels, labels[:60]]).astype(np.int32)
    dataset = Dataset(images, labels, index_ids(8), index_ids(180), "npz:x")
    found = audit(dataset)
    assert len(found.removals) >= 60
    copies = [cluster.indices for cluster in found.clusters]
    data, moved = cut(dataset, found.removals, copies, fractions=(0.6, 0.2, 0.2), seed=0)
    test, learned = data.images[data.splits["test"]], data.images[: data.splits["test"][0]]
    shown = {image.tobytes() for image in learned} | {image.tobytes() for image in learned[:, :, ::-1]}
    assert not shown & {image.tobytes() for image in test}
    assert moved
    assert len(data) < 180


def test_a_source_without_test_or_with_groups_is_refused(tmp_path):
    images = draw_cells(24, size=SIDE)[0]
    rows = ["file,label,group"]
    for number, (split, label) in enumerate([("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")]):
        folder = tmp_path / "cells" / split / label
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(encode_png(images[number]))
        rows.append(f"{split}/{label}/0.png,{label},patient{number % 2}")
    (tmp_path / "cells.csv").write_text("\n".join(rows) + "\n")
    for source, said in ((f"folder:{tmp_path / 'cells'}", "no test"), (f"csv:{tmp_path / 'cells.csv'}", "groups")):
        with pytest.raises(UsageError, match=rf"--source={source}: .*{said}"):
            prepare_data(DataConfig(source=source, root=str(tmp_path / "cells") if "csv" in source else None), tmp_path)
    assert not (tmp_path / "data.json").exists()


def test_the_runs():
    quick, full = ([entry.name for entry in entries(quick=quick)] for quick in (True, False))
    assert quick == [*(f"{row}-raw" for row in ROWS), f"{BASE}-cleaned"]
    assert full == [f"{row}-{data}" for data in ("raw", "cleaned") for row in ROWS]
    assert sum(not entry.ours for entry in entries(quick=False)) == 5
    assert {name for question in QUESTIONS for name in (question.first, question.second)} <= set(full)


@pytest.mark.parametrize("weights", [None, "weights.safetensors"])
def test_the_configurations(prepared, weights):
    for size in (QUICK, FULL):
        for entry in entries(quick=size is QUICK):
            config = size.config_of(entry, prepared, weights)
            validate(config)
            lengths = [stage.epochs for stage in config.stages]
            if size is QUICK:
                assert set(lengths) == {3.0}
                assert config.model.dtype == "float32"
            own = [stage.epochs for stage in entry.row.stages]
            if entry.row.name == "cnn":
                assert (config.model.variant, config.model.weights) == ("custom_cnn", None)
            else:
                assert (config.model.variant, config.model.weights) == (size.variant, weights)
                # From random weights, everything is trained, as long as the stages together.
                assert len(lengths) == (1 if weights is None else 2)
                assert weights is not None or config.stages[0].trainable == (".*",)
            if size is FULL:
                assert sum(lengths) == sum(own)
            if entry.row.data.sampler == "under":
                assert config.data.samples_per_class == prepared.smallest_class(cleaned=entry.cleaned) < 850
            assert (config.data.clean is None) == (not entry.cleaned)


def test_where_the_weights_come_from(caplog, tmp_path):
    weights, network = tmp_path / "mine.safetensors", "test_convnext2"
    gone = replace(QUICK, variant=network, published="convnext_atto.gone")
    with caplog.at_level(logging.WARNING):
        assert find_start(gone, None, random_if_none=True) is None
    assert "convnext_atto.gone" in caplog.text
    assert "random weights" in caplog.text
    for asked, fallback in ((None, False), (str(weights), True)):
        with pytest.raises(UsageError, match=r"--weights: .*no such file.*--weights=none"):
            find_start(gone, asked, random_if_none=fallback)
    shapes = param_shapes(create_model(network, 10), SIDE)
    save_weights(weights, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes), variant_info(network, 10))
    assert find_start(gone, str(weights), random_if_none=True) == str(weights)
    assert find_start(replace(gone, published=str(weights)), None, random_if_none=False) == str(weights)
    assert find_start(gone, "none", random_if_none=False) is None
    with pytest.raises(UsageError, match=rf"mine.safetensors: holds {network}, .*trains convnext_atto"):
        find_start(QUICK, str(weights), random_if_none=True)
    assert {FULL.published, QUICK.published} <= set(CATALOG)


@pytest.mark.exhaustive
def test_scores_over_several_passes():
    labels = np.array([0, 0, 1, 1])
    predicted = np.array([[0, 0], [0, 1], [1, 1], [1, 0]])
    scores = scores_of(labels, predicted, 2)
    assert (scores["n"], scores["accuracy"], scores["balanced_accuracy"]) == (4, 0.75, 0.75)
    assert scores["f1_weighted"] == pytest.approx(0.75)
    low, high = scores["accuracy_ci95"]
    assert 0 <= low < 0.75 < high <= 1
    assert scores_of(labels, predicted[:, :1], 2)["accuracy_ci95"] == [1, 1]
    # Twice the same answers say no more than once.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    once = np.where(rng.random(200) < 0.8, labels, 1 - labels)[:, None]
    widths = [np.ptp(scores_of(labels, np.repeat(once, passes, 1), 2)["accuracy_ci95"]) for passes in (1, 4)]
    assert widths[1] == pytest.approx(widths[0], rel=0.2)


def answers(labels, right):
    """Return answers [n, 1] to labels of two classes of which the first `right` are right."""
    return np.where(np.arange(len(labels)) < right, labels, 1 - labels)[:, None]


def test_sentences_say_what_the_intervals_hold():
    labels = np.tile([0, 1], 200)
    questions = [Question("More", "few", "many"), Question("Same", "few", "few"), Question("Gone", "few", "absent")]
    of_runs = {
        "few": {"clean": answers(labels, 200), "corrupted": answers(labels, 150)},
        "many": {"clean": answers(labels, 300), "corrupted": answers(labels, 100)},
    }
    compared = comparisons_of(labels, of_runs, questions)
    assert [each["about"] for each in compared] == ["More", "Same"]
    assert compared[0]["clean"]["difference"] == 0.25
    runs = [
        {"title": name, "data": "raw"} | {on: scores_of(labels, of[on], 2) for on in of} for name, of in of_runs.items()
    ]
    unfinished = {"title": "late", "data": "raw", "clean": None, "corrupted": None}
    said = findings([*runs, unfinished], compared)
    assert '"many" on raw data has the highest accuracy, 75.0 %' in said[0]
    assert "overlap" not in said[0]
    assert '"few" on raw data has the highest accuracy, 37.5 %' in said[1]
    assert "50.0 % to 75.0 % on clean" in said[2]
    assert "31.2 points on average" in said[2]
    assert "better on clean images (+25.0 points" in said[3]
    assert "worse on corrupted images (-12.5 points" in said[3]
    assert said[4].count("no difference shown") == 2
    assert findings([unfinished], []) == ["No run is finished yet."]


def test_near_runs_are_said_to_overlap():
    labels = np.tile([0, 1], 200)
    scored = [scores_of(labels, answers(labels, right), 2) for right in (300, 296)]
    runs = [
        {"title": title, "data": "raw", "clean": scores, "corrupted": scores}
        for title, scores in zip("ab", scored, strict=True)
    ]
    assert 'the intervals of "b" on raw data overlap' in findings(runs, [])[0]


@pytest.mark.exhaustive
def test_a_whole_table(source, tmp_path):
    """Three runs of a test network: results, page, what a second call does, and what it refuses."""
    tiny = replace(QUICK, variant="test_convnext2", image_size=SIDE, most_epochs=1.0, block=8)
    chosen = [Entry(ROWS["cnn"], cleaned=False), Entry(ROWS[BASE], cleaned=False), Entry(ROWS[BASE], cleaned=True)]
    data, workdir = DataConfig(source=f"npz:{source}"), tmp_path / "table"
    content = train_table(data, workdir, tiny, chosen, weights="none")
    assert content == json.loads((workdir / "table1.json").read_text())
    for run in content["runs"]:
        metrics = json.loads((workdir / run["path"] / "eval/test/metrics.json").read_text())
        assert {key: run["clean"][key] for key in content["keys"]} == pytest.approx(
            {key: metrics[key] for key in content["keys"]}
        )
        assert run["clean"]["n"] == run["corrupted"]["n"] == content["data"]["raw"]["splits"]["test"]
    assert len(content["comparisons"]) == 2
    page = (workdir / "index.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert all(str(escape(sentence)) in page for sentence in content["findings"])
    trained = {path: path.stat().st_mtime_ns for path in workdir.glob("runs/*/checkpoints/*")}
    assert trained
    assert train_table(data, workdir, tiny, chosen) == content
    assert trained == {path: path.stat().st_mtime_ns for path in workdir.glob("runs/*/checkpoints/*")}
    with pytest.raises(UsageError, match=r"image_size: 32 -> 48"):
        train_table(data, workdir, replace(tiny, image_size=48), chosen)
    with pytest.raises(UsageError, match=r"weights: None -> other"):
        train_table(data, workdir, tiny, chosen, weights="other")


def test_the_page_of_a_table_that_is_not_finished(tmp_path, prepared):
    run = {"name": "cnn-raw", "title": "Custom <CNN>", "data": "raw", "ours": False, "path": "runs/cnn-raw"}
    run |= {"failed": None, "clean": None, "corrupted": None}
    content = {"variant": "convnext_atto", "weights": None, "most_epochs": 3.0, "data": prepared.facts}
    content |= {"suite": {"name": "one-chain", "version": 1, "passes": 1}, "keys": ["accuracy", "f1_macro"]}
    content |= {"runs": [run, run | {"failed": "it diverged"}], "comparisons": [], "findings": findings([], [])}
    write_table1_page(tmp_path / "index.html", content, tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Custom &lt;CNN&gt;" in page
    assert page.count("not finished yet") == page.count(">diverged<") == 2
    assert "random weights" in page
    assert f"{PLANTED + 1} planted" in page
