"""The pages of predict: they show what the rows say, names are text, and the corrections are a manifest."""

import base64
import contextlib
import csv
import hashlib
import io
import os
import re
import shutil
import zipfile
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import bloodcell_jax as bc
from bloodcell_jax import cli
from bloodcell_jax.evaluate.chosen_images import GALLERY_SIZE, review_order
from bloodcell_jax.evaluate.predict_files import predict_files
from bloodcell_jax.evaluate.prediction_outputs import PredictionOutputs
from bloodcell_jax.report.gallery_page import write_gallery_page
from bloodcell_jax.report.review_page import write_review_page

NAMES = ("red", "green", "blue")
HOSTILE = ("<b onclick=x>.png", '"><img src=x>.png', "'&lt;.png", "=1+1.png", "a\x1b[2J\udcff.png", "{{ 7 * 7 }}.png")


class Page(HTMLParser):
    """Collects the elements of a page, with their attributes, and its text."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += f"{data} "

    def of(self, tag):
        return [attributes for found, attributes in self.elements if found == tag]


@pytest.fixture(scope="module")
def classifier(trained):
    return bc.Classifier.from_workdir(trained)


@pytest.fixture(scope="module")
def pixels(cells):
    with np.load(cells) as arrays:
        return arrays["images"]


@pytest.fixture
def predict(classifier, tmp_path):
    """Return a function that predicts and writes both pages: the predictions, the rows and the review page's root."""

    def predict(*inputs, size=12, folder="out"):
        outputs = PredictionOutputs(tmp_path / folder / "cells.csv", tmp_path / folder / "cells.html", size)
        predictions = predict_files(lambda: classifier, list(map(str, inputs)), outputs, strict=True)
        write_gallery_page(outputs.page, predictions, list(map(str, inputs)), outputs.rows)
        root = write_review_page(outputs.review, predictions, {"workdir": "runs/first"})
        with outputs.rows.open(newline="", encoding="utf-8") as file:
            return Page(outputs.page), Page(outputs.review), list(csv.DictReader(file)), root

    return predict


def write_images(folder, images, names=None):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        # A name of any suffix is a PNG by its content.
        Image.fromarray(image).save(folder / (names[number] if names else f"{number:03}.png"), "png")


def test_the_gallery_shows_the_counts_and_both_ends_of_each_class(predict, pixels, tmp_path):
    write_images(tmp_path / "in" / "monday", np.concatenate([pixels, pixels[:60]]))
    write_images(tmp_path / "in" / "tuesday", pixels[40:50])
    page, _, rows, _ = predict(tmp_path / "in")
    classes = [row["predicted"] for row in rows]
    counts = {name: classes.count(name) for name in NAMES}
    assert sum(counts.values()) == 190
    words = " ".join(page.text.split())
    for name, count in counts.items():
        assert f"{name} {count} {count / 190:.1%}".replace("%", " %") in words
        assert f"{name}: {count} images" in words
    for folder, number in (("monday", 180), ("tuesday", 10)):
        assert re.search(rf"{folder} Class Images Share red .* All {number} 100.0 %", words)
    shown = [min(GALLERY_SIZE, count) for count in counts.values()]
    assert len(page.of("img")) == sum(shown)
    for count in counts.values():
        assert (f"{count - GALLERY_SIZE} more are not shown" in words) == (count > GALLERY_SIZE)
    assert max(counts.values()) > GALLERY_SIZE > min(counts.values()) - 20


def test_names_are_text_and_the_pages_need_nothing_else(predict, pixels, tmp_path):
    write_images(tmp_path / "<i>in", pixels[: len(HOSTILE)], HOSTILE)
    for page in predict(tmp_path / "<i>in")[:2]:
        assert len(page.of("img")) == len(HOSTILE)
        assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.of("img"))
        assert not [attributes for _, attributes in page.elements if "onclick" in attributes]
        assert not page.of("b onclick=x")
        for name in ("<b onclick=x>.png", '"><img src=x>.png', "'&lt;.png", "{{ 7 * 7 }}.png", r"a\x1b[2J\xff.png"):
            assert name in page.text
        assert {tag for tag, _ in page.elements} <= set(TAGS)
        assert not [
            value for _, attributes in page.elements for value in attributes.values() if "http" in (value or "")
        ]


TAGS = (
    *("html", "head", "meta", "title", "style", "body", "header", "section", "footer", "h1", "h2", "h3", "p", "pre"),
    *("table", "thead", "tbody", "tr", "th", "td", "span", "div", "figure", "figcaption", "img", "br", "b", "strong"),
    *("dl", "dt", "dd", "code", "fieldset", "legend", "i", "ol", "li", "label", "input", "select", "option", "output"),
    *("button", "script", "noscript", "tfoot"),
)


def test_only_the_scripts_of_the_library_may_run(predict, pixels, tmp_path):
    write_images(tmp_path / "in", pixels[:3])
    gallery, review, _, _ = predict(tmp_path / "in")
    policy = [meta["content"] for page in (gallery, review) for meta in page.of("meta") if "http-equiv" in meta]
    assert all(each.startswith("default-src 'none'; img-src data:;") for each in policy)
    for name, each, count in zip(("cells.html", "cells.review.html"), policy, (1, 3), strict=True):
        html = (tmp_path / "out" / name).read_text(encoding="utf-8")
        scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
        assert len(scripts) == html.count("<script") == count
        digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
        assert each.partition("script-src ")[2] == " ".join(f"'sha256-{digest}'" for digest in digests)


def test_the_least_certain_cells_come_first_with_their_likeliest_classes(predict, pixels, tmp_path):
    write_images(tmp_path / "in", pixels[::4])
    _, review, rows, _ = predict(tmp_path / "in")
    # The least known and the least certain take turns.
    confidence, score = (np.array([float(row[name]) for row in rows]) for name in ("confidence", "ood_score"))
    expected = [rows[i] for i in review_order(confidence, score)[:12]]
    cells = review.of("fieldset")
    assert [cell["data-file"] for cell in cells] == [row["file"] for row in expected]
    assert [cell["data-predicted"] for cell in cells] == [row["predicted"] for row in expected]
    first = re.search(rf"1\. {re.escape(expected[0]['file'])}(.*?)Correct as is: (\w+)", review.text, re.DOTALL)
    answers = sorted(NAMES, key=lambda name: -float(expected[0][name]))
    shown = re.findall(r"(\w+) ([\d.]+)\u00a0%", first[1])
    assert [name for name, _ in shown] == answers
    assert [float(p) for _, p in shown] == pytest.approx([100 * float(expected[0][name]) for name in answers], abs=0.06)
    assert first[2] == expected[0]["predicted"]
    assert "bloodcell train --config=adapt:runs/first " in review.text
    assert "'--config.data.class_names=('\"'\"'red'" in review.text
    assert [option["value"] for option in review.of("option")][:5] == ["", *(f"class:{n}" for n in NAMES), "leave out"]


def test_another_work_list_is_other_work_for_the_browser(predict, pixels, tmp_path):
    write_images(tmp_path / "in", pixels[::4])
    key = lambda review: next(each["data-key"] for each in review.of("section") if "data-key" in each)  # noqa: E731
    keys = [key(predict(tmp_path / "in", size=size)[1]) for size in (12, 12, 11)]
    assert keys[0] == keys[1] != keys[2]


def test_the_part_of_an_image_that_the_model_saw_is_marked(predict, pixels, tmp_path):
    large = np.tile(pixels[0], (12, 20, 1))[:360, :600]
    write_images(tmp_path / "in", [large, pixels[0]])
    _, review, _, _ = predict(tmp_path / "in")
    (mark,) = [each["style"] for each in review.of("i")]
    # 200 of 600 and of 360 pixels, in the middle.
    assert mark == "left: 33.33%; top: 22.22%; width: 33.33%; height: 55.56%"
    sizes = set()
    for image in review.of("img"):
        content = base64.b64decode(image["src"].partition(",")[2])
        sizes.add(Image.open(io.BytesIO(content)).size)
    assert sizes == {(400, 240), (32, 32)}


@contextlib.contextmanager
def corrected(review, path):
    """Save what the page saves if every answer is right; see the browser test for the page itself."""
    rows = [(cell["data-file"], cell["data-predicted"], cell["data-predicted"]) for cell in review.of("fieldset")]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([("file", "label", "predicted"), *rows])
    yield
    path.unlink()


def check_manifest(review, path, count, **reading):
    with corrected(review, path):
        data = bc.load_source(f"csv:{path}", image_size=32, **reading)
    assert len(data) == count
    assert data.columns["predicted"] == tuple(data.class_names[label] for label in data.labels)
    return data


def test_the_corrections_are_a_manifest_next_to_the_page_and_elsewhere(predict, pixels, tmp_path):
    write_images(tmp_path / "out/images", pixels[: len(HOSTILE)], HOSTILE)
    shutil.copytree(tmp_path / "out/images", tmp_path / "cells")
    with zipfile.ZipFile(tmp_path / "slides.zip", "w") as archive:
        archive.write(tmp_path / "cells" / HOSTILE[0], "deep/1.png")
    _, review, _, root = predict(tmp_path / "out/images")
    assert str(root) == str(tmp_path / "out")
    assert {cell["data-file"] for cell in review.of("fieldset")} >= {"images/=1+1.png", "images/'&lt;.png"}
    data = check_manifest(review, tmp_path / "out/corrections.csv", 6)
    found = {image.tobytes() for image in data.images}
    assert found == {image.tobytes() for image in pixels[:6]}
    elsewhere = tmp_path / "corrections.csv"
    check_manifest(review, elsewhere, 6, root=str(root))

    _, review, _, root = predict(tmp_path / "cells")
    assert str(root) == str(tmp_path / "cells")
    # In its own folder, the name would be a formula.
    assert "./=1+1.png" in {cell["data-file"] for cell in review.of("fieldset")}
    check_manifest(review, elsewhere, 6, root=str(root))

    _, review, _, root = predict(tmp_path / "slides.zip")
    assert str(root) == str(tmp_path / "slides.zip")
    check_manifest(review, elsewhere, 1, root=str(root))

    _, review, _, root = predict(tmp_path / "slides.zip", tmp_path / "cells", os.path.relpath(tmp_path / "out/images"))
    assert str(root) == str(tmp_path)
    data = check_manifest(review, elsewhere, 12, root=str(root))
    assert "slides.zip/deep/1.png" in data.ids


def test_the_commands_of_the_review_page_repeat_how_the_model_was_used(trained, pixels, tmp_path):
    write_images(tmp_path / "cells", pixels[:4])
    used = [f"--workdir={trained}", "--checkpoint=last", "--tta", "--crop=24"]
    command = ["bloodcell", "predict", *used, f"--input={tmp_path / 'cells'}", f"--output={tmp_path / 'cells.csv'}"]
    assert cli.main([*command, "--review=2"]) == 0
    text = Page(tmp_path / "cells.review.html").text
    evaluates, trains = (re.search(rf"bloodcell {verb} [^\n]*", text)[0] for verb in ("evaluate", "train"))
    for word in (f"--workdir={trained}", "--checkpoint=last", "--tta=True", "--crop=24"):
        assert word in evaluates
    assert "--config.data.crop=24" in trains
