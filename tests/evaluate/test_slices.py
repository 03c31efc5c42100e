"""Parts of a split that are scored by themselves."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from bloodcell_jax import cli
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.metrics import classification_metrics
from bloodcell_jax.evaluate.slices import MOST_VALUES, read_slices, score_slices

IDS = ("train/a/1.png", "train/a/2.png", "val/b/3.png")


def dataset(ids=IDS, **columns):
    images = np.zeros((len(ids), 2, 2, 3), np.uint8)
    labels = np.arange(len(ids), dtype=np.int32) % 2
    return Dataset(images, labels, ("a", "b"), ids, "csv:cells.csv", columns=columns)


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a table of files and stains, and returns its path."""

    def write(*rows, header="file,stain"):
        (tmp_path / "stains.csv").write_text("\n".join([header, *rows]) + "\n")
        return tmp_path / "stains.csv"

    return write


def test_a_column_of_the_manifest_and_of_a_table_beside_it(table):
    cells = dataset(stain=("giemsa", " ", "wright"))
    assert read_slices(cells, ["stain"]) == {"stain": ("giemsa", "(blank)", "wright")}
    # By whole ids or by the names of files, in any order, with rows of other images.
    for rows in (("val/b/3.png,w", "train/a/1.png,g", "x,y", "train/a/2.png,g"), ("2.png,g", "3.png,w", "1.png,g")):
        assert read_slices(cells, [f"{table(*rows)}:stain"]) == {"stain": ("g", "g", "w")}


@pytest.mark.parametrize(
    ("rows", "column", "named"),
    [
        (("1.png,g", "2.png,g"), "stain", "val/b/3.png"),
        (("1.png,g", "2.png,g", "3.png,g", "3.png,w"), "stain", "line 4, line 5"),
        (("1.png,g", "2.png,g", "3.png,w"), "staining", "'staining'"),
    ],
)
def test_a_table_that_does_not_say_it_of_every_image_is_refused(rows, column, named, table):
    with pytest.raises((DataError, UsageError), match=named):
        read_slices(dataset(), [f"{table(*rows)}:{column}"])


def test_a_name_that_two_images_share_tells_nothing(table):
    cells = dataset(ids=("day1/1.png", "day2/1.png"))
    with pytest.raises(DataError, match=r"day1/1.png and day2/1.png"):
        read_slices(cells, [f"{table('1.png,g')}:stain"])


def test_what_is_no_slice_is_refused(table):
    with pytest.raises(UsageError, match=r"--slices=day: .*stain"):
        read_slices(dataset(stain=("g", "g", "w")), ["day"])
    many = tuple(map(str, range(MOST_VALUES + 1)))
    with pytest.raises(UsageError, match=f"{MOST_VALUES + 1} values"):
        read_slices(dataset(ids=many, day=many), ["day"])
    with pytest.raises(UsageError, match="twice"):
        read_slices(dataset(stain=("g", "g", "w")), ["stain", f"{table('1.png,g', '2.png,g', '3.png,w')}:stain"])


def test_a_slice_has_the_scores_of_its_images():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(3, size=90), rng.dirichlet(np.ones(3), 90)
    values, groups = tuple(rng.choice(["x", "y"], 90)), tuple(map(str, np.arange(90) % 12))
    scores = score_slices({"stain": values}, labels, probabilities, "abc", groups=groups)["stain"]
    assert list(scores) == ["x", "y"]
    rows = np.array(values) == "y"
    own = [group for group, mine in zip(groups, rows, strict=True) if mine]
    alone = classification_metrics(labels[rows], probabilities[rows], "abc", groups=own)
    assert scores["y"] == {name: alone[name] for name in scores["y"]}
    assert {"n", "accuracy", "accuracy_ci95", "balanced_accuracy", "f1_macro"} <= scores["y"].keys()


def test_a_small_slice_without_an_error_has_a_wide_interval():
    probabilities = np.eye(2)[[0, 1, 0, 1, 0]]
    labels = probabilities.argmax(axis=1)
    for groups, count in ((None, 5), (list("aabbc"), 3)):
        scores = score_slices({"stain": ["g"] * 5}, labels, probabilities, ("a", "b"), groups=groups)["stain"]["g"]
        peers = binomtest(count, count).proportion_ci(0.95, method="wilson")
        assert scores["accuracy_ci95"] == pytest.approx([peers.low, peers.high], abs=1e-6)
        assert scores["f1_macro_ci95"] is None


def test_evaluate_scores_slices_by_themselves(trained, tmp_path, table, capsys):
    path = table(*(f"{i},{'first' if i < 50 else 'second'}" for i in range(120)))
    command = ["bloodcell", "evaluate", f"--workdir={trained}", "--split=all", f"--output={tmp_path / 'scores'}"]
    assert cli.main([*command, f"--slices={path}:stain"]) == 0
    metrics = json.loads((tmp_path / "scores/metrics.json").read_text())
    found = metrics["slices"]["stain"]
    assert {name: scores["n"] for name, scores in found.items()} == {"first": 50, "second": 70}
    right = sum(scores["n"] * scores["accuracy"] for scores in found.values())
    assert right == pytest.approx(metrics["n"] * metrics["accuracy"])
    page = (tmp_path / "scores/index.html").read_text()
    assert "stain" in page
    assert "second" in page
    assert cli.main([*command, "--slices=stain"]) == 2
    assert "--slices=stain" in capsys.readouterr().err


def test_a_run_says_before_its_training_that_it_cannot_slice(cells, tmp_path, capsys):
    flags = [f"--config.data.source=npz:{cells}", "--config.evaluate.slices=stain", f"--workdir={tmp_path / 'run'}"]
    assert cli.main(["bloodcell", "train", "--config=quickstart", *flags]) == 2
    assert "--slices=stain" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
