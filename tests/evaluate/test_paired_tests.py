"""Two models that judged the same examples: the test and the interval agree with independent ones."""

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from bloodcell_jax.evaluate.intervals import ci95_of_difference
from bloodcell_jax.evaluate.paired_tests import compare_paired, mcnemar_exact


def test_mcnemar_s_exact_test_is_the_binomial_test_of_the_discordant_pairs():
    for only_first in (0, 1, 2, 3, 7, 20, 181, 4000):
        for only_second in (0, 1, 5, 20, 200, 4100):
            total = only_first + only_second
            peer = binomtest(only_first, total, 0.5).pvalue if total else 1.0
            assert mcnemar_exact(only_first, only_second) == pytest.approx(peer, rel=1e-9), (only_first, only_second)
    # Fagerland et al. 2013, table 1: 1 against 7 pairs of 21.
    assert mcnemar_exact(1, 7) == pytest.approx(0.0703, abs=5e-5)


def _answers(n=400):
    rng = np.random.default_rng(0)
    hard = rng.random(n)
    return hard + rng.normal(0, 0.3, n) < 0.8, hard + rng.normal(0, 0.3, n) < 0.9


def test_counts_and_difference_by_hand():
    result = compare_paired(np.array([1, 1, 1, 0, 0]), np.array([1, 0, 1, 1, 1]))
    assert (result.n, result.only_first, result.only_second, result.n_groups) == (5, 1, 2, None)
    assert result.difference == pytest.approx(0.2)
    assert result.p_value == 1.0
    same = compare_paired(np.ones(5, bool), np.ones(5, bool))
    assert (same.difference, same.interval, same.p_value) == (0.0, [0.0, 0.0], 1.0)
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        compare_paired(np.ones(2, bool), np.ones(3, bool))


def test_the_paired_interval_is_that_of_resampled_pairs():
    first, second = _answers()
    result = compare_paired(first, second)
    peer = bootstrap(
        (first.astype(float), second.astype(float)),
        lambda a, b, axis: b.mean(axis) - a.mean(axis),
        paired=True,
        n_resamples=4_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    # The standard deviation of the difference is 0.022, and a 2.5 % quantile of 1,000 draws errs by a twelfth of it.
    assert result.interval == pytest.approx([peer.low, peer.high], abs=0.006)
    # Unpaired samples would spread more: both models fail on the hard ones.
    unpaired = 1.96 * np.sqrt(first.var() / 400 + second.var() / 400)
    assert result.interval[1] - result.interval[0] < 1.9 * unpaired


def test_copies_of_an_example_are_one_group_and_add_nothing():
    first, second = _answers(60)
    once = ci95_of_difference(second.astype(int) - first, np.arange(60), seed=3)
    copies = [np.repeat(answers, 20) for answers in (first, second)]
    result = compare_paired(*copies, groups=np.repeat(np.arange(60), 20), seed=3)
    assert result.interval == pytest.approx(once)
    assert (result.n_groups, result.p_value) == (60, None)
    by_examples = compare_paired(*copies, seed=3).interval
    assert by_examples[1] - by_examples[0] < 0.3 * (once[1] - once[0])


def test_a_loss_of_accuracy_has_a_negative_interval_and_one_group_has_none():
    first, second = np.ones(90, bool), np.arange(90) % 3 > 0
    groups = np.repeat(np.arange(30), 3)
    assert compare_paired(first, second, groups=groups).difference == pytest.approx(-1 / 3)
    assert compare_paired(first, second, groups=groups).interval == pytest.approx([-1 / 3, -1 / 3])
    low, high = compare_paired(first, np.arange(90) % 7 > 1, groups=groups).interval
    assert -1 <= low < high < 0
    assert compare_paired(first, second, groups=np.zeros(90, int)).interval is None
