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
    bootstrap_ci95,
    classification_metrics,
    confusion_matrix,
    expected_calibration_error,
    negative_log_likelihood,
    quick_metrics,
    ranking_of,
    reliability,
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
    }


def test_result_is_plain_json_with_the_documented_fields():
    labels, probabilities = _predictions(50, 4)
    scores = classification_metrics(labels, probabilities.astype(np.float32), NAMES)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert list(scores) == [
        "n", "accuracy", "precision_weighted", "recall_weighted", "f1_weighted", "f1_macro",
        "balanced_accuracy", "auc_macro_ovr", "nll", "ece", "brier", "per_class", "confusion_matrix",
        "accuracy_ci95", "f1_macro_ci95",
    ]  # fmt: skip
    assert list(scores["per_class"]) == NAMES


def test_a_class_without_examples_counts_as_zero_in_macro_averages_only():
    labels = np.array([0, 1, 2, 2])
    probabilities = np.eye(4)[labels]
    scores = classification_metrics(labels, probabilities, NAMES)
    assert scores["f1_macro"] == 0.75
    assert scores["balanced_accuracy"] == scores["f1_weighted"] == 1.0
    assert scores["auc_macro_ovr"] is None
    assert scores["per_class"]["platelet"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert [row[3] for row in scores["confusion_matrix"]] == [0, 0, 0, 0] == scores["confusion_matrix"][3]


def test_perfect_predictions():
    labels = np.arange(4).repeat(5)
    scores = classification_metrics(labels, np.eye(4)[labels], NAMES)
    for name in ("accuracy", "precision_weighted", "f1_macro", "balanced_accuracy", "auc_macro_ovr"):
        assert scores[name] == 1.0
    assert scores["nll"] == scores["ece"] == scores["brier"] == 0.0
    assert scores["accuracy_ci95"] == [1.0, 1.0]


def test_one_example():
    scores = classification_metrics(np.array([1]), np.array([[0.25, 0.75]]), ["a", "b"])
    assert (scores["n"], scores["accuracy"], scores["f1_macro"]) == (1, 1.0, 0.5)
    assert scores["auc_macro_ovr"] is None
    assert scores["ece"] == pytest.approx(0.25)
    assert scores["accuracy_ci95"] == [1.0, 1.0]
    assert scores["f1_macro_ci95"] == [0.5, 0.5]


def test_a_probability_of_zero_costs_log_epsilon_as_in_scikit_learn():
    labels, probabilities = np.array([1, 0]), np.array([[1.0, 0.0], [1.0, 0.0]])
    loss = negative_log_likelihood(labels, probabilities)
    assert loss == pytest.approx(-np.log(np.finfo(np.float64).eps) / 2)
    assert loss == pytest.approx(peer.log_loss(labels, probabilities))


def test_bins_of_confidence_are_closed_above():
    edges = np.arange(1, 16) / 15
    count, confidence, correct = reliability(edges, np.ones(15, bool))
    assert count.tolist() == correct.tolist() == [1] * 15
    assert confidence.tolist() == edges.tolist()
    count, _, _ = reliability(np.array([0.0, 1 / 15, np.nextafter(1 / 15, 1), 1.0]), np.zeros(4, bool))
    assert count.tolist() == [2, 1, *[0] * 12, 1]


def test_calibration_error_averages_gaps_of_bins_not_of_examples():
    # One bin: mean confidence 0.95, accuracy 0.5. Another: 0.55 and 1.
    confidence = np.array([0.94, 0.96, 0.55, 0.55])
    correct = np.array([True, False, True, True])
    assert expected_calibration_error(confidence, correct) == pytest.approx(0.5 * 0.45 + 0.5 * 0.45)


def test_bootstrap_equals_resampling_examples():
    labels, probabilities = _predictions(400, 3)
    predicted = probabilities.argmax(axis=1)
    rng = np.random.default_rng(1)
    draws = [rng.integers(400, size=400) for _ in range(1_000)]
    accuracy = [np.mean(labels[i] == predicted[i]) for i in draws]
    f1_macro = [peer.f1_score(labels[i], predicted[i], labels=range(3), average="macro") for i in draws]
    ours = bootstrap_ci95(confusion_matrix(labels, predicted, 3), seed=0)
    # The 2.5 % quantile of 1,000 draws of standard deviation 0.02 has standard error 0.0017.
    np.testing.assert_allclose(ours, np.percentile([accuracy, f1_macro], [2.5, 97.5], axis=1).T, atol=0.008)


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
        assert np.isnan(quick_metrics(np.array([0, 1]), np.full((2, 3), np.nan))["loss"])


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
