"""The page of a run shows its numbers, needs no other file, and survives hostile names and missing files."""

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.config import Config, OptimizerConfig, StageConfig, to_dict
from bloodcell_jax.errors import DataError, MachineError, UsageError
from bloodcell_jax.evaluate.metrics import METRICS, classification_metrics
from bloodcell_jax.report import write_report

NAMES = ["basophil", "eosinophil", "immature <b>granulocyte</b>", "platelet"]
HOSTILE = '"><script>alert(1)</script>'


class _Page(HTMLParser):
    """Collects the visible text, all tags, all addresses that the page would load, and its notes on missing files."""

    def __init__(self, html: str):
        super().__init__()
        self.text, self.tags, self.addresses, self.absent = "", [], [], []
        self._in_note = False
        self.feed(html)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._in_note = ("class", "absent") in attributes
        self.addresses += [v for k, v in attributes if k in ("src", "href", "xlink:href", "srcset", "data", "action")]

    def handle_endtag(self, tag):
        self._in_note = False

    def handle_data(self, data):
        self.text += data
        if self._in_note:
            self.absent.append(data)

    def notes(self, name: str) -> bool:
        """Return whether the page says that the file `name` is missing."""
        return any(name in note for note in self.absent)


def _page(workdir) -> _Page:
    return _Page(write_report(workdir).read_text(encoding="utf-8"))


def _evaluation(folder, n: int, seed: int) -> dict:
    """Write the files of an evaluation: scores, predictions and the worst images."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(NAMES)
    logits = rng.normal(size=(n, len(NAMES))) + 2 * np.eye(len(NAMES))[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    metrics = classification_metrics(labels, probabilities, NAMES)
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "predicted", "confidence", *NAMES])
        for i, row in enumerate(probabilities):
            cells = [i, NAMES[labels[i]], NAMES[predicted[i]], f"{row.max():.6f}", *(f"{p:.6f}" for p in row)]
            writer.writerow(cells)
    png = io.BytesIO()
    Image.new("RGB", (8, 8), "purple").save(png, "png")
    image = {"id": f"test/{HOSTILE}.jpg", "label": NAMES[2], "predicted": NAMES[0], "confidence": 0.987}
    image |= {"probability_of_label": 0.012, "png": base64.b64encode(png.getvalue()).decode()}
    (folder / "most_wrong.json").write_text(json.dumps([image]))
    return metrics


@pytest.fixture
def workdir(tmp_path):
    """Make the files of a finished run with two stages, evaluated on val and test."""
    config = Config()
    head = StageConfig(name="head", epochs=1.0, trainable=("head/.*", "!.*"), cached_views=2, image_size=48)
    config.stages = [
        head,
        StageConfig(name="finetune", steps=30, optimizer=OptimizerConfig(learning_rate=5e-5)),
    ]
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    split = {"count": 1404, "per_class": dict(zip(NAMES, (351, 352, 353, 348), strict=True))}
    data = {
        "source": "zip:cells.zip",
        "sha256": "ab12" * 16,
        "n": 2000,
        "image_size": 96,
        "class_names": NAMES,
    }
    data |= {"splits": {"train": split, "val": split}, "notes": ["val was cut from train"]}
    environment = {
        "command": "bloodcell train --workdir=run",
        "started": "2025-03-02T10:11:12Z",
        "data": data,
    }
    environment |= {"versions": {"jax": "0.10.2"}, "devices": ["NVIDIA H200"], "git_revision": "a1b2c3d"}
    environment |= {"seconds_trained": 3725.0, "model": {"variant": "convnext_atto", "parameters": 3373240}}
    environment["model"]["trainable"] = {"head": 1284, "finetune": 3373240}
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for step in range(1, 61):
            record = {"step": step, "stage": "head" if step <= 30 else "finetune", "epoch": step / 30}
            record |= {"train/loss": 2 / step, "train/accuracy": 1 - 0.5 / step, "lr": 1e-3 * (1 - step / 60)}
            record |= {"norm/gradient": 5 / step, "perf/images_per_second": 90000.0 if step <= 30 else 912.0}
            if step % 10 == 0:
                record |= {"val/loss": 2.2 / step, "val/accuracy": 1 - 0.6 / step, "val/f1_macro": 0.9}
            file.write(json.dumps(record) + "\n")
    _evaluation(tmp_path / "eval" / "val", 120, seed=1)
    _evaluation(tmp_path / "eval" / "test", 160, seed=2)
    return tmp_path


def test_the_numbers_of_every_split_are_on_the_page(workdir):
    page = _page(workdir)
    for split in ("val", "test"):
        metrics = json.loads((workdir / "eval" / split / "metrics.json").read_text())
        for name in ("accuracy", "precision_weighted", "f1_weighted", "f1_macro", "balanced_accuracy"):
            assert f"{100 * metrics[name]:.2f} %" in page.text
        for name in ("auc_macro_ovr", "nll", "ece", "brier"):
            assert f"{metrics[name]:.4f}" in page.text
    low, high = metrics["accuracy_ci95"]
    headline = rf"Accuracy on test ?{metrics['accuracy']:.2%}[^.]* {low:.2%} \w+ {high:.2%}"
    assert re.search(headline.replace("%", " %"), page.text)
    counts = [str(n) for row in metrics["confusion_matrix"] for n in row]
    html = (workdir / "report" / "index.html").read_text()
    assert re.findall(r'<td class="(?:hit|miss)[^>]*>(\d+)</td>', html) == counts


def test_what_was_trained_on_what_is_on_the_page(workdir):
    page = _page(workdir)
    for fact in (
        "convnext_atto on zip:cells.zip", "ab12" * 16, "3,373,240 parameters", "1,284", "NVIDIA H200",
        "jax 0.10.2", "1 h 2 min", "912 images/s", "2 views",
        "bloodcell train --workdir=run", "val was cut from train", "30 steps", "5e-05", Config().augment.policy,
        "1,404", '"label_smoothing"', *NAMES,
    ):  # fmt: skip
        assert fact in page.text, fact
    assert re.search(r"\bfinetune\b[^.;]*\b31\b", page.text), "the step at which the second stage begins"
    assert "48 × 48" in page.text, "the images of the first stage"
    assert "patient identifiers" in page.text
    assert "Not for diagnosis" in page.text
    assert page.tags.count("svg") == 5  # four curves and the reliability diagram
    assert page.tags.count("img") == 1
    assert page.absent == []


@pytest.mark.parametrize(
    ("by", "said", "not_said"),
    [
        ({"groups": "source", "count": 25, "crossing": 0}, "Split by patient: 25 groups", "patient identifiers"),
        ({"groups": "source", "count": 25, "crossing": 3}, "3 of 25 groups", "Split by patient"),
        ({"groups": "source", "count": 2000, "crossing": 0}, "patient identifiers", "Split by patient"),
        ({"groups": None, "duplicates": True}, "patient identifiers", "Split by patient"),
    ],
)
def test_the_warning_about_patients_follows_the_splits(workdir, by, said, not_said):
    by |= {"per_split": {"train": 20, "val": 5}}
    (workdir / "splits.json").write_text(json.dumps({"sha256": "ab12", "by": by, "splits": {}}))
    page = _page(workdir)
    assert said in page.text
    assert not_said not in page.text
    assert "Not for diagnosis" in page.text


def test_images_that_training_did_not_see_are_said_to_be_unused(workdir):
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["samples_per_class"] = 10
    (workdir / "config.json").write_text(json.dumps(config))
    assert "natural: 10 images of each class; training did not see the others" in _page(workdir).text


@pytest.mark.parametrize(
    ("by", "kept", "may_cross"),
    [
        ({"given": [], "duplicates": True}, True, False),
        ({"given": [], "duplicates": False}, False, True),
        ({"given": ["train", "val"], "duplicates": False}, False, True),
        ({"given": ["train", "test"], "duplicates": True}, True, True),
    ],
)
def test_what_is_said_of_copies_follows_what_was_cut(workdir, by, kept, may_cross):
    (workdir / "splits.json").write_text(json.dumps({"sha256": "ab12", "by": by | {"groups": None}, "splits": {}}))
    text = _page(workdir).text
    assert ("kept in one split" in text) == kept
    assert ("may be in several" in text) == may_cross
    assert (f"own splits ({', '.join(by['given'])})" in text) == bool(by["given"])


def test_the_page_loads_nothing_and_escapes_what_it_shows(workdir):
    page = _page(workdir)
    assert page.addresses, "the gallery's image is an address"
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    html = (workdir / "report" / "index.html").read_text()
    assert not re.search(r"@import|url\((?!#)", html)
    assert HOSTILE in page.text
    assert not {"link", "iframe", "object", "embed"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert "<b>granulocyte" not in html


def test_an_id_that_is_not_utf8_or_turns_the_line_is_shown_as_it_is(workdir):
    path = workdir / "eval" / "test" / "most_wrong.json"
    (image,) = json.loads(path.read_text())
    path.write_text(json.dumps([image | {"id": "cell-\udce9.jpg"}, image | {"id": "gpj.\u202egnp"}]))
    text = _page(workdir).text
    assert r"cell-\xe9.jpg" in text
    assert r"gpj.\u202egnp" in text
    assert "\u202e" not in text


@pytest.mark.parametrize("missing", ["config.json", "environment.json", "metrics.jsonl", "eval/test/most_wrong.json"])
def test_a_missing_file_is_named_and_the_rest_is_shown(workdir, missing):
    (workdir / missing).unlink()
    page = _page(workdir)
    assert page.notes(missing.removeprefix("eval/test/"))
    assert len(page.absent) == 1
    assert "Accuracy on test" in page.text


def test_the_page_of_a_run_that_has_not_evaluated_test_is_about_val(workdir):
    assert "scores on val" not in _page(workdir).text
    (workdir / "eval" / "test" / "metrics.json").unlink()
    page = _page(workdir)
    assert "Accuracy on val" in page.text
    assert "scores on val" in page.text
    assert page.absent == []


def test_without_predictions_the_reliability_diagram_is_left_out(workdir):
    (workdir / "eval" / "test" / "predictions.csv").unlink()
    page = _page(workdir)
    assert page.tags.count("svg") == 4
    assert page.notes("predictions.csv")


def test_a_run_that_has_just_begun(tmp_path):
    page = _page(tmp_path)
    for name in ("evaluation", "metrics.jsonl", "environment.json", "config.json"):
        assert page.notes(name), name
    assert "no image" not in page.text.lower()


def test_no_errors_are_good_news(workdir):
    (workdir / "eval" / "test" / "most_wrong.json").write_text("[]")
    path = workdir / "eval" / "test" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"accuracy": 1.0, "accuracy_ci95": [1.0, 1.0]}))
    page = _page(workdir)
    assert "no image" in page.text.lower()
    assert re.search(r"\b1\.9 %[^.]*rule of three", page.text)  # 3 of 160


def test_with_errors_the_intervals_speak_for_themselves(workdir):
    assert "rule of three" not in _page(workdir).text


def test_a_class_without_examples_has_no_auc(workdir):
    path = workdir / "eval" / "test" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auc_macro_ovr": None}))
    (title,) = (metric.title for metric in METRICS if metric.key == "auc_macro_ovr")
    assert re.search(rf"{title} ?0\.\d{{4}}–", _page(workdir).text)


def test_the_page_is_replaced_in_one_step(workdir, monkeypatch):
    page = write_report(workdir)
    assert page == workdir / "report" / "index.html"
    before = page.read_bytes()
    assert write_report(workdir).read_bytes() == before, "the same files give the same page"
    (workdir / "config.json").unlink()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full_disk)
        with pytest.raises(MachineError, match="No space left"):
            write_report(workdir)
    assert page.read_bytes() == before
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]
    assert write_report(workdir).read_bytes() != before


def test_broken_files_are_named(workdir):
    with pytest.raises(UsageError, match="/absent: "):
        write_report(workdir / "absent")
    (workdir / "metrics.jsonl").write_text('{"step": 1}\nnot json\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl\D*\b2: "):
        write_report(workdir)
    (workdir / "environment.json").write_text('{"cut off')
    with pytest.raises(DataError, match=r"environment\.json: "):
        write_report(workdir)
