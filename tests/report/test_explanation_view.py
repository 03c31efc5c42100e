"""The part of a page that explains a split: from its files alone, small, and safe whatever names they hold."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.metrics import classification_metrics
from bloodcell_jax.report import write_report
from bloodcell_jax.report.explanation_view import explanation_view
from bloodcell_jax.report.heat_layer import heat_layer
from bloodcell_jax.workdir import Workdir

HOSTILE = '"><script>alert(1)</script>'
JPEG = base64.b64encode(b"jpeg").decode()


def _cell(why, agreement, **changed):
    neighbor = {"id": f"train/{HOSTILE}", "label": "ig", "jpeg": JPEG, "distance": 0.25}
    answers = [{"name": HOSTILE, "probability": 0.7}, {"name": "ig", "probability": 0.2}]
    return {
        "why": why,
        "id": f"val/{HOSTILE}",
        "label": "ig",
        "jpeg": JPEG,
        "answers": answers,
        "margin": 0.5,
        "explained_class": HOSTILE,
        "occlusion": np.eye(8).tolist(),
        "grad_cam": np.eye(3).tolist(),
        "rank_agreement": agreement,
        "neighbors": [neighbor] * 3,
    } | changed


def _map(count, classes=8, seed=0):
    rng = np.random.default_rng(seed)
    names = [HOSTILE, *(f"class {i}" for i in range(1, classes))]
    label = rng.integers(0, classes, count)
    predicted = np.where(rng.random(count) < 0.1, (label + 1) % classes, label)
    x, y = rng.normal(size=(2, count)).tolist()
    record = {"method": "pca", "shares": [0.5, 0.25], "x": x, "y": y, "of": 9000, "class_names": names}
    return record | {"label": label.tolist(), "predicted": predicted.tolist()}


@pytest.fixture
def folder(tmp_path):
    evaluation = Workdir(tmp_path).evaluation("val")
    evaluation.path.mkdir(parents=True)
    return evaluation


def _write(folder, cells, embedding, without=None):
    folder.explained_cells.write_text(json.dumps({"cells": cells, "without_neighbors": without}))
    folder.embedding_map.write_text(json.dumps(embedding))


def _section(folder):
    """Return the part of the run's page that explains its val split."""
    labels = np.arange(8) % 4
    folder.metrics.write_text(json.dumps(classification_metrics(labels, np.eye(4)[labels], ["a", "b", "c", "d"])))
    html = write_report(folder.path.parents[1]).read_text()
    return html[html.index("<h2>What the model looks at") : html.index("</section>", html.index("<h2>What the model"))]


def _text(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", html))


def test_every_cell_stands_with_its_maps_answers_and_neighbors(folder):
    cells = [_cell("mistake", 0.9), _cell("mistake", 0.7), _cell("uncertain", 0.8)]
    _write(folder, cells, _map(50))
    html = _section(folder)
    assert html.count("<article>") == 3
    assert html.count("data:image/jpeg;base64,") == 3 * (3 + 3)
    assert html.count("data:image/png;base64,") == 3 * 2
    assert html.count('class="layers ') == 3 * (3 + 3), "every picture can be enlarged"
    text = _text(html)
    for said in ("The 2 most confident mistakes", "The 1 least certain answers", "3 × 3", "70.0 %", "0.25", "0.80"):
        assert said in text
    assert "<script" not in html
    assert "do not read Grad-CAM" not in text


def test_a_page_warns_of_grad_cam_where_it_does_not_agree_with_occlusion(folder):
    _write(folder, [_cell("mistake", 0.9), _cell("mistake", 0.1), _cell("mistake", -0.3)], _map(9))
    assert "the median 0.10" in _text(_section(folder))
    assert "do not read Grad-CAM" in _text(_section(folder))
    _write(folder, [_cell("mistake", None, grad_cam=[[1.0]])], _map(9))
    assert "cannot be compared" in _text(_section(folder))


def test_without_training_images_the_reason_is_said(folder):
    _write(folder, [_cell("mistake", 0.9, neighbors=[])], _map(9), without=f"zip:{HOSTILE}: no such file")
    html = _section(folder)
    assert "no such file" in _text(html)
    assert "<script" not in html
    assert "nearest training images" not in _text(html)


def test_a_map_of_2000_images_is_small_and_counts_its_mistakes(folder):
    record = _map(2000)
    _write(folder, [], record)
    html = _section(folder)
    wrong = int((np.array(record["label"]) != record["predicted"]).sum())
    dots, crosses = (re.findall(rf'class="{kind}"[^>]* d="([^"]*)"', html) for kind in ("dots", "crosses"))
    assert sum(path.count("M") for path in dots) == 2000 - wrong
    assert sum(path.count("M") for path in crosses) == wrong
    assert len({*re.findall(r'class="dots" stroke="(#\w+)"', html)}) == 8
    assert len(html) < 150_000
    text = _text(html)
    assert f"a mistake ({wrong})" in text
    assert "2,000 of the 9,000 images" in text
    assert "50.0 % of the variance, upwards 25.0 %" in text
    assert "the other 25.0 %" in text


def test_names_of_classes_do_not_cover_each_other(folder):
    record = _map(400)
    _write(folder, [], record | {"x": [0.0, *record["x"][1:]], "y": [value / 9 for value in record["y"]]})
    places = [(c["x"], c["y"]) for c in explanation_view(folder)["map"]["classes"]]
    assert len(places) == 8
    for i, (x, y) in enumerate(places):
        assert all(abs(x - a) >= 150 or abs(y - b) >= 17 for a, b in places[:i])


def test_points_lie_inside_the_drawing_even_far_apart_or_all_in_one(folder):
    for x in ([-1e308, 1e308, 0.0], [3.0, 3.0, 3.0], [5e-324, 0.0, 0.0]):
        _write(folder, [], _map(3) | {"x": x, "y": x})
        view = explanation_view(folder)["map"]
        places = [(c["x"], c["y"]) for c in view["classes"]]
        assert all(0 < x < view["width"] and 0 < y < view["height"] for x, y in places)


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"grad_cam": [[1.0, 2.0], [3.0]]}, "grad_cam"),
        ({"occlusion": [[float("nan")]]}, "occlusion"),
        ({"jpeg": '"onerror="x'}, "jpeg"),
        ({"rank_agreement": 2}, "rank_agreement"),
        ({"answers": []}, "answers"),
    ],
)
def test_damaged_cells_are_refused_by_name(folder, changed, key):
    _write(folder, [_cell("mistake", 0.5, **changed)], _map(3))
    with pytest.raises(DataError, match=rf"explained_cells\.json: cells\[0\]\.{key}"):
        explanation_view(folder)


@pytest.mark.parametrize("changed", [{"x": [1.0]}, {"label": [0, 1, 8]}, {"shares": [0.5]}, {"y": [0, 0, 1e999]}])
def test_a_damaged_map_is_refused_by_name(folder, changed):
    _write(folder, [], _map(3) | changed)
    with pytest.raises(DataError, match=r"embedding_map\.json: "):
        explanation_view(folder)


def test_a_heat_layer_is_densest_where_the_map_is_highest():
    values = np.full((3, 3), -5.0)
    values[0, 2] = 2.0
    picture = Image.open(io.BytesIO(base64.b64decode(heat_layer(values).partition(",")[2]))).convert("RGBA")
    alpha, red = np.asarray(picture)[..., 3], np.asarray(picture)[..., 0]
    white = red == 255
    cell = alpha.shape[0] // 3
    assert (alpha[2 * cell :] == 0).all()
    assert white[: 2 * cell, cell:].sum() == white.sum() > 0
    shades = np.where(white, 0, alpha)
    assert shades.max() == shades[:cell, -cell:].max() == round(0.8 * 255)
    assert heat_layer(-np.ones((3, 3))) is None
    assert len(heat_layer(np.random.default_rng(0).normal(size=(8, 8)))) < 8000
