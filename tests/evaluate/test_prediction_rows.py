"""The forms in which predict gives its answers: more columns, JSON lines, standard output; and what it refuses."""

import csv
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

import bloodcell_jax as bc
from bloodcell_jax import cli
from bloodcell_jax.evaluate.predict_files import predict_files
from bloodcell_jax.evaluate.prediction_outputs import PredictionOutputs

NAMES = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def classifier(trained):
    return bc.Classifier.from_workdir(trained)


@pytest.fixture(scope="module")
def images(cells, tmp_path_factory):
    """Return a folder with two folders of images."""
    folder = tmp_path_factory.mktemp("slides") / "images"
    with np.load(cells) as arrays:
        for number, image in enumerate(arrays["images"][::20]):
            path = folder / ("monday" if number < 4 else "tuesday") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


@pytest.fixture
def predict(classifier, images, tmp_path):
    """Return a function that writes the rows of these images, and returns their file."""

    def predict(name, *, top=1):
        predict_files(lambda: classifier, [str(images)], PredictionOutputs(tmp_path / name), strict=True, top=top)
        return tmp_path / name

    return predict


@pytest.fixture
def command(trained, images):
    """Return a function that runs the verb on these images, and returns the exit code."""
    return lambda *flags: cli.main(["bloodcell", "predict", f"--workdir={trained}", f"--input={images}", *flags])


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_top_adds_the_next_classes_beside_the_first(predict):
    rows = rows_of(predict("three.csv", top=3).read_text())
    answers = [("predicted", "confidence"), ("second", "second_confidence"), ("third", "third_confidence")]
    assert list(rows[0]) == ["file", *(name for pair in answers for name in pair), *NAMES, "ood_score", "known"]
    for row in rows:
        ranked = sorted(NAMES, key=lambda name: -float(row[name]))
        assert [row[name] for name, _ in answers] == ranked
        assert [row[confidence] for _, confidence in answers] == [row[name] for name in ranked]
    assert list(rows_of(predict("two.csv", top=2).read_text())[0])[:6] == ["file", *sum(answers[:2], ()), "red"]


def test_json_lines_hold_what_the_csv_holds_with_exact_names(predict, images):
    odd = images / "=1\udcff.png"
    odd.write_bytes((images / "monday/0.png").read_bytes())
    try:
        rows = rows_of(predict("cells.csv", top=2).read_text())
        lines = [json.loads(line) for line in predict("cells.JSONL", top=2).read_text("ascii").splitlines()]
    finally:
        odd.unlink()
    assert list(lines[0]) == [
        "file",
        "predicted",
        "confidence",
        "second",
        "second_confidence",
        "probabilities",
        "ood_score",
        "known",
    ]
    assert (lines[0]["file"], rows[0]["file"]) == ("=1\udcff.png", r"'=1\xff.png")
    for line, row in zip(lines, rows, strict=True):
        assert (line["predicted"], line["second"]) == (row["predicted"], row["second"])
        assert list(line["probabilities"]) == NAMES
        assert [f"{p:.6f}" for p in line["probabilities"].values()] == [row[name] for name in NAMES]
        assert line["confidence"] == max(line["probabilities"].values())
        assert (f"{line['ood_score']:.6f}", line["known"]) == (row["ood_score"], row["known"] == "true")
        assert line["known"] == (line["ood_score"] <= 1)


def test_rows_on_standard_output_are_alone_there(predict, command, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").mkdir()  # It is not what is meant.
    assert command("--output=-", f"--page={tmp_path / 'cells.html'}") == 0
    rows, said = capfd.readouterr()
    assert rows == predict("cells.csv").read_text()
    lines = [line.split() for line in said.splitlines()]
    assert lines[0] == ["class", "all", "monday", "tuesday"]
    assert lines[1] == ["red", "2", "33.3%", "2", "50.0%", "0", "0.0%"]
    assert lines[3] == ["blue", "2", "33.3%", "0", "0.0%", "2", "100.0%"]
    assert lines[4] == ["images", "6", "100.0%", "4", "100.0%", "2", "100.0%"]
    assert ["page:", str(tmp_path / "cells.html")] in lines


REFUSED = {
    "more classes than there are": (["--top=4"], "--top=4", "3 classes"),
    "another format": (["--output={tmp}/cells.json"], "cells.json", "cells.jsonl"),
    "a spreadsheet": (["--output={tmp}/cells.xlsx"], "cells.xlsx", "cells.csv"),
    "a page that is a folder": (["--page={tmp}"], "--page={tmp}: is a folder", "cells.html"),
    "a page that is named like an image": (["--page={tmp}/a.png"], "--page={tmp}/a.png", "a.html"),
    "a page that is the output": (["--page={tmp}/link/cells.csv"], "--page={tmp}/link/cells.csv", "cells.csv as well"),
    "a page that is an input": (["--page={tmp}/in.html"], "--page={tmp}/in.html", "0.png"),
    "a page that is the review": (["--page={tmp}/cells.review.html", "--review=2"], "--review=2", "as well"),
    "a review page that is an input": (["--output={tmp}/in.csv", "--review=2"], "in.review.html", "0.png"),
    "a review page that is the model": (["--output={tmp}/m.csv", "--review=2"], "m.review.html", "model.safetensors"),
    "a review beside no file": (["--output=-", "--review=2"], "--review=2", "name a file"),
    "a negative review": (["--review=-1"], "--review", "-1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_output_that_cannot_be_meant_is_refused_and_nothing_is_written(
    command, trained, images, tmp_path, capfd, case
):
    (tmp_path / "link").symlink_to(tmp_path)
    os.link(images / "monday/0.png", tmp_path / "in.html")
    (tmp_path / "in.review.html").symlink_to(images / "monday/0.png")
    (tmp_path / "m.review.html").symlink_to(trained / "model.safetensors")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    flags, *words = REFUSED[case]
    assert command(f"--output={tmp_path / 'cells.csv'}", *(flag.format(tmp=tmp_path) for flag in flags)) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert all(word.format(tmp=tmp_path) in line for word in words)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
