"""The page of another laboratory: its classes, its groups, and the run's own scores beside."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from bloodcell_jax.data.dataset import Dataset, index_ids
from bloodcell_jax.evaluate.answers import Answers
from bloodcell_jax.evaluate.outputs import write_split
from bloodcell_jax.evaluate.predictions_file import read_predictions
from bloodcell_jax.report.evaluation_page import write_evaluation_page
from bloodcell_jax.report.evaluation_view import confused_pairs
from bloodcell_jax.weights.calibration import Calibration, Reference
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.layout import SUITE_NAMES, EvaluationFolder

# Of a model that is calibrated: its scores of 80 images, of which it knows all but the first four.
OOD = np.where(np.arange(80) < 4, 3.0, 0.5)
CALIBRATION = Calibration(
    examples=1704,
    errors=140,
    temperature=2.0,
    ece=0.02,
    wanted_error=0.01,
    confidence=0.6,
    coverage=0.93,
    reference=Reference(
        np.eye(2, dtype=np.float16), np.zeros(2, np.float32), np.eye(2, dtype=np.float32), (0.0,) * 3, (1.0,) * 3, 1.0
    ),
)
# The folder of a run that has written nothing.
NO_RUN = Workdir("/nonexistent/run")
NAMES = ("basophil", "eosinophil", "immature <b>granulocyte</b>", "platelet")
ORIGIN = {"source": "folder:labs/B&B", "split": "all"}
MAP = {"Baso": "basophil", "PLT": "platelet", "<i>Smudge</i>": None}


def _write(folder, classes, origin, seed, groups=None, calibration=None):
    """Write the files of an evaluation of 80 images of some classes; returns its metrics."""
    rng = np.random.default_rng(seed)
    labels = np.array(classes, np.int32)[np.arange(80) % len(classes)]
    logits = rng.normal(size=(80, 4)) + 1.5 * np.eye(4)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    images = np.zeros((80, 8, 8, 3), np.uint8)
    dataset = Dataset(images, labels, NAMES, index_ids(80), "folder:x", groups=groups)
    known = (np.stack([OOD / 9, OOD / 2, OOD], axis=1), OOD, OOD <= 1) if calibration else ()
    answers = Answers(probabilities, *known)
    return write_split(
        folder, dataset, np.arange(80), answers, step=7, calibration=calibration, holds_val=False, origin=origin
    )


@pytest.fixture
def lab(tmp_path):
    return EvaluationFolder(tmp_path / "lab")


@pytest.fixture
def workdir(tmp_path):
    run = Workdir(tmp_path / "run")
    _write(run.evaluation("test"), (0, 1, 2, 3), None, seed=2)
    return run


def _text(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page.read_text(encoding="utf-8")))


def _percent(value):
    return f"{100 * value:.2f} %"


def test_both_laboratories_stand_side_by_side(lab, workdir):
    here = _write(lab, (0, 3), ORIGIN | {"class_map": MAP, "dropped": {"<i>Smudge</i>": 12}}, seed=1)
    home = json.loads(workdir.evaluation("test").metrics.read_text())
    page = write_evaluation_page(lab, workdir)
    assert page == lab.page
    text = _text(page)
    assert f"Accuracy{_percent(home['accuracy'])}{_percent(here['accuracy'])}" in text
    forced = text[text.index("Forced choice among the 2 ") :]
    assert _percent(here["forced_choice"]["accuracy"]) in forced
    assert here["forced_choice"]["accuracy"] > here["accuracy"]
    assert re.search(r"Images ?40 ?80", forced), "the run's own images of the same classes"
    assert "over 2 of 4 classes" in text
    assert re.search(r"PLT ?platelet", text)
    assert re.search(r"&lt;i&gt;Smudge&lt;/i&gt; ?[^<>]*\b12 images", text)
    html = page.read_text()
    assert "<i>" not in html
    assert html.count("<script") == 1
    assert html.count("data:image/png") == min(24, round(80 * (1 - here["accuracy"])))


def test_the_groups_are_a_table_and_plots(lab):
    groups = tuple(f"slide {i // 16}" for i in range(80))
    here = _write(lab, (0, 1, 2, 3), ORIGIN, seed=1, groups=groups)
    assert (here["intervals_by"], here["n_groups"]) == ("groups", 5)
    page = write_evaluation_page(lab, NO_RUN)
    text = _text(page)
    assert "the 5 groups" in text
    assert all(f"slide {i}" in text for i in range(5))
    assert page.read_text().count("<svg") == 4
    assert "Forced choice" not in text


def test_a_split_written_again_leaves_nothing_of_the_earlier_one(lab):
    _write(lab, (0, 1), ORIGIN, seed=1, groups=("a", "b") * 40)
    write_evaluation_page(lab, NO_RUN)
    # Only a run that started from another model has what that one scored before, suites are scored when asked for, and
    # no network explains these.
    optional = {lab.before, *lab.explanations, *map(lab.suite, SUITE_NAMES)}
    assert set(lab.path.iterdir()) == set(lab.files) - optional
    for path in lab.explanations:
        path.write_text("of another model")
    _write(lab, (0, 1), ORIGIN, seed=1)
    assert {path.name for path in lab.path.iterdir()} == {"metrics.json", "predictions.csv", "most_wrong.json"}


def test_one_class_or_one_group_is_said_to_tell_little(lab):
    here = _write(lab, (3,), ORIGIN, seed=1, groups=("a",) * 80)
    assert here["forced_choice"] is None
    assert here["accuracy_ci95"] is None
    text = _text(write_evaluation_page(lab, NO_RUN))
    assert "no interval" in text
    assert "all examples are platelet" in text


def test_mistakes_are_put_into_words_with_those_between_granulocytes_first():
    confusion = [[50, 3, 0], [9, 40, 1], [0, 20, 80]]
    pairs = confused_pairs(confusion, ["neutrophil", "ig", "monocyte"])
    assert [tuple(pair.values()) for pair in pairs] == [
        ("ig", "neutrophil", 9, 50),
        ("neutrophil", "ig", 3, 53),
        ("monocyte", "ig", 20, 100),
        ("ig", "monocyte", 1, 50),
    ]


def test_a_page_says_sensitivity_and_specificity_with_their_intervals(lab):
    metrics = _write(lab, (0, 1, 2, 3), ORIGIN | {"class_map": {}, "dropped": {}}, seed=1)
    text = _text(write_evaluation_page(lab, NO_RUN))
    scores, row = metrics["per_class"]["platelet"], metrics["confusion_matrix"][3]
    for name in ("recall", "specificity"):
        low, high = scores[f"{name}_ci95"]
        assert f"{100 * scores[name]:.1f} % {100 * low:.1f}–{100 * high:.1f} %" in text
    wrong = max(range(3), key=row.__getitem__)
    assert f"{row[wrong]} of {sum(row)} images of platelet were called {NAMES[wrong].split(' <')[0]}" in text


def test_confidence_is_shown_before_and_after_with_counts_and_what_it_keeps(lab):
    here = _write(lab, (0, 1, 2, 3), ORIGIN, seed=1, calibration=CALIBRATION)
    before, after = here["before_temperature"], here["reliability"]
    assert sum(before["reliability"]["count"]) == sum(after["count"]) == 80
    assert (here["temperature"], here["calibration"]["examples"]) == (2.0, 1704)
    assert before["ece"] != here["ece"]
    # What is divided by a temperature of 2 is less certain, and as often right.
    assert before["reliability"]["count"][-1] > after["count"][-1]
    kept = np.array([row.confidence >= 0.6 for row in read_predictions(lab)])
    assert here["kept"]["coverage"] == kept.mean()
    assert here["out_of_distribution"]["refused"] == 4
    assert here["out_of_distribution"]["refused_share_by"] == {"energy": 0.0, "neighbors": 0.05, "appearance": 0.05}
    page = write_evaluation_page(lab, NO_RUN)
    text, html = _text(page), page.read_text()
    for value in (before["ece"], here["ece"], before["brier"], before["nll"], here["risk_coverage"]["aurc"]):
        assert f"{value:.4f}" in text
    assert f"At confidence 0.6 or more the model answers {100 * kept.mean():.1f} % of the cells" in text
    assert "4 of 80 images (5.0 %)" in text
    counts = [str(count) for count in after["count"] if count > 9]
    assert counts
    assert all(f">{count}</text>" in re.sub(r"\s+", " ", html).replace("> ", ">") for count in counts)


def test_where_no_answer_is_kept_nothing_is_said_of_its_errors(lab):
    _write(lab, (0, 1), ORIGIN, seed=1, calibration=replace(CALIBRATION, confidence=1.0))
    assert json.loads(lab.metrics.read_text())["kept"]["error"] is None
    text = _text(write_evaluation_page(lab, NO_RUN))
    assert "answers 0.0 % of the cells" in text
    assert "errs on" not in text


def test_scores_on_the_images_of_the_fit_are_said_to_be_optimistic(lab):
    _write(lab, (0, 1), ORIGIN, seed=1, calibration=CALIBRATION)
    assert "optimistic" not in _text(write_evaluation_page(lab, NO_RUN))
    metrics = json.loads(lab.metrics.read_text())
    metrics["calibration"]["holds_val"] = True
    lab.metrics.write_text(json.dumps(metrics))
    assert "optimistic" in _text(write_evaluation_page(lab, NO_RUN))


def test_the_page_of_an_earlier_evaluation_still_has_its_diagram(lab):
    metrics = _write(lab, (0, 1, 2, 3), ORIGIN, seed=1)
    early = [name for name in metrics if name not in ("risk_coverage", "reliability", "temperature", "calibration")]
    lab.metrics.write_text(json.dumps({name: metrics[name] for name in early}))
    assert write_evaluation_page(lab, NO_RUN).read_text().count("<svg") == 1


def test_suites_are_shown_with_their_numbers(lab):
    _write(lab, (0, 1, 2, 3), ORIGIN | {"class_map": MAP, "dropped": {}}, 0)
    levels = {str(level): {"accuracy": 0.9, "balanced_accuracy": 0.9 - level / 20} for level in range(1, 6)}
    score = {"accuracy": 0.9, "balanced_accuracy": 0.88}
    suite = {"suite": {"name": "blood96-c", "version": 1}, "clean": score, "mean": score, "relative": score}
    weaker = {level: {"accuracy": 0.9, "balanced_accuracy": 0.97} for level in levels}
    lab.suite("blood96-c").write_text(json.dumps(suite | {"stain_deposit": levels, "jpeg": weaker}))
    page = write_evaluation_page(lab, NO_RUN).read_text()
    table = page[page.index("Under <b>blood96-c</b>") :]
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr>(.*?)</tr>", table, re.S)[1:3]]
    # The worst first: its errors, their mean, and how much that is above clean.
    assert rows[0] == ["stain", "deposit", "15.0", "20.0", "25.0", "30.0", "35.0", "25.0", "+13.0"]
    assert rows[1] == ["jpeg", *["3.0"] * 6, "-9.0"]
    assert "The worst corruption is stain deposit" in page


def test_a_page_without_suites_says_how_to_get_them(lab):
    _write(lab, (0, 1, 2, 3), ORIGIN | {"class_map": MAP, "dropped": {}}, 0)
    assert "--suite=blood96-c" in write_evaluation_page(lab, NO_RUN).read_text()
