"""The range test: its rates, its end, and what is read off its losses."""

import math

import numpy as np
import pytest

from bloodcell_jax.train.range_test import has_diverged, read_off, rising_rates, smoothed


def test_the_rate_rises_by_one_factor_from_the_first_step_to_the_last():
    schedule = rising_rates(1e-7, 10.0, 100)
    np.testing.assert_allclose([schedule(step) for step in range(100)], np.geomspace(1e-7, 10, 100), rtol=1e-3)


def test_the_average_weighs_each_loss_by_its_age():
    losses = np.random.default_rng(0).uniform(1, 3, 50)
    for count, average in enumerate(smoothed(losses), 1):
        weights = 0.98 ** np.arange(count)[::-1]
        assert average == pytest.approx((weights * losses[:count]).sum() / weights.sum())


def test_a_loss_that_is_not_finite_or_four_times_the_lowest_ends_it():
    assert has_diverged([2.0, math.nan])
    assert has_diverged([2.0, math.inf])
    assert not has_diverged([2.0, 7.0])
    # The average of 2 and x is a little above their mean.
    assert has_diverged([2.0, 15.0])
    assert not has_diverged([2.0] * 50 + [15.0])


def curve(rates):
    """A loss that falls from 2 to 0.5 around 1e-3, steepest there, and rises beyond 1."""
    decades = np.log10(rates)
    return 2 - 1.5 / (1 + np.exp(-3 * (decades + 3))) + np.exp(4 * (decades - 0.5))


def fastai(rates, averages):
    """The loops of fastai's `valley` and `steep`."""
    lengths = [1] * len(averages)
    end = 0
    for i in range(1, len(averages)):
        for j in range(i):
            if averages[i] < averages[j] and lengths[i] < lengths[j] + 1:
                lengths[i] = lengths[j] + 1
            if lengths[end] < lengths[i]:
                end = i
    third = lengths[end] / 3
    middle = end - lengths[end] + int(third) + int(third / 2)
    slopes = [(averages[i + 1] - averages[i]) / np.log(rates[i + 1] / rates[i]) for i in range(len(rates) - 1)]
    return rates[middle], rates[int(np.argmin(slopes))]


@pytest.mark.parametrize("seed", range(5))
def test_what_is_read_off_is_what_fastai_reads_off(seed):
    rates = np.geomspace(1e-7, 10, 100)
    losses = curve(rates) + np.random.default_rng(seed).normal(0, 0.1, 100)
    found = read_off(rates, losses, 100)
    used = slice(10, 95)
    valley, steepest = fastai(rates[used], smoothed(losses)[used])
    assert found.valley == pytest.approx(valley)
    assert found.steepest == pytest.approx(steepest)
    # The average follows late, so what is read off it lies beyond the steepest fall of the losses.
    assert 1e-4 < found.steepest < 1
    assert found.before_lowest == pytest.approx(rates[10 + smoothed(losses)[used].argmin()] / 10)


@pytest.mark.parametrize("losses", [[2.0] * 100, np.linspace(2, 3, 100), np.linspace(2, 1.97, 100), [2.0, 1.0, 0.5]])
def test_nothing_is_read_off_a_loss_that_does_not_fall(losses):
    assert read_off(np.geomspace(1e-7, 10, 100)[: len(losses)], losses, 100) is None
