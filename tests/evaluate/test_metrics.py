"""Scores equal scikit-learn's and hand-computed ones, at the edges too."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
from sklearn import metrics as peer

from bloodcell_jax.config import TrainConfig
from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.metrics import (
    LOGGED,
    METRICS,
    classification_metrics,
    quick_metrics,
    ranking_of,
)

NAMES = ["basophil", "eosinophil", "ig", "platelet"]


def _predictions(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_every_score_is_scikit_learns(classes):
    labels, probabilities = _predictions(500, classes)
    names = [f"class {c}" for c in range(classes)]
    predicted = probabilities.argmax(axis=1)
    scores = classification_metrics(labels, probabilities, names)

    options = {"labels": range(classes), "zero_division": 0}
    weighted = peer.precision_recall_fscore_support(labels, predicted, average="weighted", **options)
    one_hot = np.eye(classes)[labels]
    expected = {
        "accuracy": peer.accuracy_score(labels, predicted),
        "precision_weighted": weighted[0],
        "recall_weighted": weighted[1],
        "f1_weighted": weighted[2],
        "f1_macro": peer.f1_score(labels, predicted, average="macro", **options),
        "balanced_accuracy": peer.balanced_accuracy_score(labels, predicted),
        "auc_macro_ovr": peer.roc_auc_score(one_hot, probabilities, average="macro"),
        "nll": peer.log_loss(labels, probabilities, labels=range(classes)),
        "brier": classes * peer.mean_squared_error(one_hot, probabilities),
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    per_class = np.array(peer.precision_recall_fscore_support(labels, predicted, average=None, **options))
    ours = [[s["precision"], s["recall"], s["f1"], s["support"]] for s in scores["per_class"].values()]
    np.testing.assert_allclose(ours, per_class.T, rtol=1e-12)
    assert scores["confusion_matrix"] == peer.confusion_matrix(labels, predicted).tolist()


def test_scores_by_hand():
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    scores = classification_metrics(labels, probabilities, ["a", "b"])
    assert scores["n"] == 4
    assert scores["confusion_matrix"] == [[2, 1], [0, 1]]
    assert scores["accuracy"] == scores["recall_weighted"] == 0.75
    assert scores["precision_weighted"] == 0.75 * 1 + 0.25 * 0.5
    assert scores["f1_macro"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert scores["f1_weighted"] == pytest.approx(0.75 * 4 / 5 + 0.25 * 2 / 3)
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["auc_macro_ovr"] == 1.0
    assert scores["nll"] == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.7]).mean())
    assert scores["brier"] == pytest.approx(2 * np.mean([0.01, 0.04, 0.36, 0.09]))
    assert scores["ece"] == pytest.approx((0.1 + 0.2 + 0.6 + 0.3) / 4)  # each confidence has a bin of its own
    assert scores["per_class"]["b"] == {
        "precision": 0.5,
        "recall": 1.0,
        "f1": pytest.approx(2 / 3),
        "support": 1,
        "recall_ci95": pytest.approx([0.2065, 1.0], abs=1e-4),  # Wilson, 1 of 1
        "specificity": pytest.approx(2 / 3),
        "specificity_ci95": pytest.approx([0.2077, 0.9385], abs=1e-4),  # 2 of 3
    }


def test_result_is_plain_json_with_the_documented_fields():
    labels, probabilities = _predictions(50, 4)
    scores = classification_metrics(labels, probabilities.astype(np.float32), NAMES)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert list(scores) == [
        "n", "accuracy", "precision_weighted", "recall_weighted", "f1_weighted", "f1_macro",
        "balanced_accuracy", "auc_macro_ovr", "nll", "ece", "brier", "per_class", "confusion_matrix",
        "accuracy_ci95", "f1_macro_ci95", "intervals_by", "n_groups", "present_classes", "auc_macro_ovr_reason",
        "forced_choice",
    ]  # fmt: skip
    assert list(scores["per_class"]) == NAMES


def test_macro_means_are_over_the_classes_that_have_examples():
    labels, probabilities = _predictions(400, 4)
    kept = np.isin(labels, [1, 3])
    labels, probabilities = labels[kept], probabilities[kept]
    scores = classification_metrics(labels, probabilities, NAMES)
    predicted = probabilities.argmax(axis=1)
    assert scores["present_classes"] == ["eosinophil", "platelet"]
    assert scores["f1_macro"] == pytest.approx(peer.f1_score(labels, predicted, labels=[1, 3], average="macro"))
    with warnings.catch_warnings(action="ignore"):
        assert scores["balanced_accuracy"] == pytest.approx(peer.balanced_accuracy_score(labels, predicted))
    assert scores["f1_macro_ci95"][0] < scores["f1_macro"] < scores["f1_macro_ci95"][1]
    assert scores["auc_macro_ovr"] is None
    assert scores["auc_macro_ovr_reason"] == "no example of basophil, ig"
    absent = scores["per_class"]["ig"]
    assert [absent[key] for key in ("precision", "recall", "f1", "support")] == [0.0, 0.0, 0.0, 0]
    assert absent["recall_ci95"] is None
    assert absent["specificity"] == pytest.approx(peer.recall_score(labels != 2, predicted != 2))
    assert quick_metrics(labels, probabilities)["f1_macro"] == scores["f1_macro"]


def test_a_perfect_model_scores_one_without_all_classes():
    labels = np.arange(5).repeat(20)
    scores = classification_metrics(labels, np.eye(8)[labels], [f"class {c}" for c in range(8)])
    for name in ("accuracy", "f1_macro", "balanced_accuracy", "f1_weighted"):
        assert scores[name] == scores["forced_choice"][name] == 1.0
    assert scores["f1_macro_ci95"] == [1.0, 1.0]
    assert scores["forced_choice"]["auc_macro_ovr"] == 1.0


def test_a_forced_choice_is_among_the_classes_present():
    labels, probabilities = _predictions(400, 4)
    kept = np.isin(labels, [0, 2, 3])
    labels, probabilities = labels[kept], probabilities[kept].copy()
    probabilities[0] = [0, 1, 0, 0]  # says nothing of those present
    scores = classification_metrics(labels, probabilities, NAMES)
    among = probabilities[:, [0, 2, 3]]
    among[0] = 1 / 3
    names = [NAMES[c] for c in (0, 2, 3)]
    alone = classification_metrics(np.searchsorted([0, 2, 3], labels), among / among.sum(1, keepdims=True), names)
    forced = alone.pop("forced_choice")
    assert scores["forced_choice"] == alone == forced
    assert scores["forced_choice"]["accuracy"] > scores["accuracy"]


def test_groups_widen_the_intervals_and_change_no_score():
    labels, probabilities = _predictions(400, 4)
    order = np.argsort(probabilities.argmax(axis=1) == labels, kind="stable")  # errors come in the same groups
    labels, probabilities = labels[order], probabilities[order]
    groups = [f"patient {i // 20}" for i in range(400)]
    plain, grouped = (classification_metrics(labels, probabilities, NAMES, groups=g) for g in (None, groups))
    assert (plain["intervals_by"], plain["n_groups"]) == ("examples", None)
    assert (grouped["intervals_by"], grouped["n_groups"]) == ("groups", 20)
    for metric in METRICS:
        assert plain[metric.key] == grouped[metric.key]
    widths = [scores["accuracy_ci95"][1] - scores["accuracy_ci95"][0] for scores in (plain, grouped)]
    assert widths[1] > 2 * widths[0]
    assert grouped["forced_choice"]["n_groups"] == 20


def test_perfect_predictions():
    labels = np.arange(4).repeat(5)
    scores = classification_metrics(labels, np.eye(4)[labels], NAMES)
    for name in ("accuracy", "precision_weighted", "f1_macro", "balanced_accuracy", "auc_macro_ovr"):
        assert scores[name] == 1.0
    assert scores["nll"] == scores["ece"] == scores["brier"] == 0.0
    assert scores["accuracy_ci95"] == [1.0, 1.0]


def test_one_example():
    scores = classification_metrics(np.array([1]), np.array([[0.25, 0.75]]), ["a", "b"])
    assert (scores["n"], scores["accuracy"], scores["f1_macro"]) == (1, 1.0, 1.0)
    assert scores["auc_macro_ovr"] is None
    assert scores["auc_macro_ovr_reason"] == "all examples are b"
    assert scores["forced_choice"] is None, "whoever has one class to choose from is right"
    assert scores["ece"] == pytest.approx(0.25)
    assert scores["accuracy_ci95"] == [1.0, 1.0]
    assert scores["f1_macro_ci95"] == [1.0, 1.0]


def test_bootstrap_is_seeded():
    labels, probabilities = _predictions(300, 4)
    first, again, other = (classification_metrics(labels, probabilities, NAMES, seed=s) for s in (0, 0, 1))
    assert first == again
    assert first["f1_macro_ci95"] != other["f1_macro_ci95"]
    assert first["accuracy_ci95"][0] < first["accuracy"] < first["accuracy_ci95"][1]


def test_quick_metrics_are_those_of_the_full_report():
    labels, probabilities = _predictions(200, 4)
    full = classification_metrics(labels, probabilities, NAMES)
    quick = quick_metrics(labels.astype(np.int32), probabilities)
    assert quick == {"loss": full["nll"], "accuracy": full["accuracy"], "f1_macro": full["f1_macro"]}


def test_quick_metrics_of_a_diverged_model_are_not_finite_and_do_not_warn():
    with warnings.catch_warnings(action="error"):
        metrics = quick_metrics(np.array([0, 1]), np.array([[1, 0, 0], [0, np.nan, 0]]))
    assert all(np.isnan(value) for value in metrics.values()), "no metric can make it the best"


def test_probabilities_that_are_not_finite_are_named():
    probabilities = np.full((3, 2), 0.5)
    probabilities[1, 0] = np.nan
    with pytest.raises(DataError, match=r"1 of 3 examples .* number 1\)"):
        classification_metrics(np.zeros(3, int), probabilities, ["a", "b"])


@pytest.mark.parametrize(
    ("labels", "probabilities", "names", "message"),
    [
        ([], np.zeros((0, 2)), ["a", "b"], "no examples"),
        ([0, 1], np.full((2, 2), 0.5), ["a", "b", "c"], "do not fit"),
        ([0, 2], np.full((2, 2), 0.5), ["a", "b"], r"0\.\.2 lie outside"),
        ([0, -1], np.full((2, 2), 0.5), ["a", "b"], "lie outside"),
        ([0, 1], np.full((2, 2), 0.5), ["a", "a"], "not distinct"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(labels, probabilities, names, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(np.array(labels, int), probabilities, names)


def test_metrics_json_and_the_choices_of_the_best_metric_come_from_the_table():
    scores = classification_metrics(np.array([0, 1, 1]), np.eye(2)[[0, 1, 0]], ["a", "b"])
    assert list(scores)[1 : len(METRICS) + 1] == [metric.key for metric in METRICS]
    best = next(field for field in dataclasses.fields(TrainConfig) if field.name == "best_metric")
    assert set(best.metadata["choices"]) == {f"val/{name}" for name in LOGGED}
    assert {name: ranking_of(f"val/{name}").higher_is_better for name in LOGGED} == {
        "loss": False,
        "accuracy": True,
        "f1_macro": True,
    }
