"""Intervals hold the true score as often as they say, if whole patients are resampled."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as peer

from bloodcell_jax.evaluate.confusion import confusion_matrix
from bloodcell_jax.evaluate.intervals import ci95_by_examples, ci95_by_groups, class_ci95, expanded_tail


def _predictions(n: int = 400, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.choice(classes, n, p=[1 / 6, 1 / 3, 1 / 2])
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    return labels, np.exp(logits)


def test_bootstrap_equals_resampling_examples():
    labels, probabilities = _predictions()
    predicted = probabilities.argmax(axis=1)
    rng = np.random.default_rng(1)
    draws = [rng.integers(400, size=400) for _ in range(1_000)]
    accuracy = [np.mean(labels[i] == predicted[i]) for i in draws]
    f1_macro = [peer.f1_score(labels[i], predicted[i], labels=range(3), average="macro") for i in draws]
    ours = ci95_by_examples(confusion_matrix(labels, predicted, 3), seed=0)
    # The 2.5 % quantile of 1,000 draws of standard deviation 0.02 has standard error 0.0017.
    np.testing.assert_allclose(ours, np.percentile([accuracy, f1_macro], [2.5, 97.5], axis=1).T, atol=0.008)


def test_intervals_of_sensitivity_and_specificity_are_wilson_s():
    labels, probabilities = _predictions()
    predicted = probabilities.argmax(axis=1)
    sensitivity, specificity = class_ci95(labels, predicted, None, 3, seed=0)
    for c in range(3):
        for ours, among, right in (
            (sensitivity[c], labels == c, predicted == c),
            (specificity[c], labels != c, predicted != c),
        ):
            peers = binomtest(int((right & among).sum()), int(among.sum())).proportion_ci(0.95, method="wilson")
            assert ours == pytest.approx([peers.low, peers.high], abs=1e-6)
    assert class_ci95(np.zeros(5, int), np.zeros(5, int), None, 2, seed=0) == (
        [pytest.approx([0.5655, 1.0], abs=1e-4), None],
        [None, pytest.approx([0.5655, 1.0], abs=1e-4)],
    )


def test_intervals_of_classes_over_groups_are_those_of_their_examples():
    labels, predicted, patients = _draw_patients(np.random.default_rng(3), 30)
    sensitivity, specificity = class_ci95(labels, predicted, patients, 2, seed=5)
    own = labels == 1
    groups = np.unique(patients[own], return_inverse=True)[1]
    alone, _ = ci95_by_groups(labels[own], predicted[own], groups, 2, seed=5)
    assert sensitivity[1] == specificity[0] == pytest.approx(alone)
    assert class_ci95(labels[:9], predicted[:9], np.zeros(9, int), 2, seed=0)[0] == [None, None]


def test_a_class_without_an_error_in_few_patients_has_a_wide_interval():
    labels, patients = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 2, 2])
    sensitivity, specificity = class_ci95(labels, labels, patients, 2, seed=0)
    peers = binomtest(2, 2).proportion_ci(0.95, method="wilson")
    assert sensitivity[1] == specificity[0] == pytest.approx([peers.low, peers.high])
    none_right = class_ci95(labels, 1 - labels, patients, 2, seed=0)[0][1]
    assert none_right == pytest.approx([1 - peers.high, 1 - peers.low])


def _draw_patients(rng, count):
    """Return labels, predictions and patients of cells; patients differ in accuracy, 0.85 on average."""
    sizes = 1 + rng.poisson(rng.lognormal(3, 0.5, count))
    patients = np.repeat(np.arange(count), sizes)
    labels = (rng.random(len(patients)) < 0.3).astype(int)
    right = rng.random(len(patients)) < rng.beta(17, 3, count)[patients]
    return labels, np.where(right, labels, 1 - labels), patients


def test_intervals_over_groups_cover_what_they_promise():
    rng = np.random.default_rng(0)
    held = np.zeros(2)
    for trial in range(300):
        labels, predicted, patients = _draw_patients(rng, 60)
        by_groups, _ = ci95_by_groups(labels, predicted, patients, 2, seed=trial)
        held[0] += by_groups[0] <= 0.85 <= by_groups[1]
        if trial % 20 == 0:
            by_cells, _ = ci95_by_examples(confusion_matrix(labels, predicted, 2), seed=trial)
            held[1] += by_cells[0] <= 0.85 <= by_cells[1]
    assert 0.93 <= held[0] / 300 <= 0.97
    assert held[1] / 15 < 0.9, "cells of one patient are not independent"


def test_groups_of_one_example_are_examples():
    labels, probabilities = _predictions()
    predicted = probabilities.argmax(axis=1)
    by_examples = ci95_by_examples(confusion_matrix(labels, predicted, 3), seed=0)
    by_groups = ci95_by_groups(labels, predicted, np.arange(400), 3, seed=0)
    np.testing.assert_allclose(by_groups, by_examples, atol=0.008)


def test_one_group_says_nothing_of_others():
    assert ci95_by_groups(np.array([0, 1]), np.array([0, 0]), np.array([0, 0]), 2, seed=0) == (None, None)


def test_without_errors_there_is_no_spread():
    labels = np.arange(12) % 3
    assert ci95_by_groups(labels, labels, np.arange(12) // 4, 3, seed=0) == ([1.0, 1.0], [1.0, 1.0])


def test_errors_in_one_group_of_many_give_an_interval_around_the_score():
    labels, groups = np.arange(300) % 2, np.arange(300) // 15
    predicted = np.where(groups == 3, 0, labels)
    for score, (low, high) in zip((1 - 7 / 300, 0.976), ci95_by_groups(labels, predicted, groups, 2, 0), strict=True):
        assert 0.8 < low < score < high <= 1


def test_expanded_levels_by_the_tables_of_the_t_distribution():
    # t(0.975, 9) = 2.2622, and Phi(-2.2622 * sqrt(10 / 9)) = 0.00855.
    assert expanded_tail(10) == pytest.approx(0.00855, abs=1e-5)
    assert expanded_tail(100_000) == pytest.approx(0.025, abs=1e-5)


@pytest.mark.parametrize("patients_with_it", [1, 3])
def test_a_class_of_few_patients_does_not_spread_the_interval(patients_with_it):
    rng = np.random.default_rng(0)
    labels, predicted, patients = (part.copy() for part in _draw_patients(rng, 30))
    rare = np.repeat(np.arange(patients_with_it), 6)
    labels, patients = np.r_[labels, np.full(len(rare), 2)], np.r_[patients, rare]
    predicted = np.r_[predicted, np.where(rng.random(len(rare)) < 0.9, 2, 0)]
    f1_macro = peer.f1_score(labels, predicted, average="macro")
    low, high = ci95_by_groups(labels, predicted, patients, 3, seed=0)[1]
    assert low < f1_macro < high < 1
    assert f1_macro - 0.2 < low


def test_a_draw_without_a_class_is_scored_on_the_others():
    assert ci95_by_examples(np.diag([50, 60, 2]), seed=0) == ([1, 1], [1, 1])
