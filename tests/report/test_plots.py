"""Plots survive what a run may log, stay small, and leave no traces."""

import numpy as np
import pytest

from bloodcell_jax.report import plots


def test_curves_of_a_diverged_run_leave_gaps():
    svg = plots.curves({"train": ([1, 2, 3], [1.0, float("nan"), 0.0])}, boundaries=[2], log=True)
    assert svg.startswith("<svg")
    plots.curves({"train": ([1, 2], [float("nan"), float("inf")])}, log=True)


def test_thinning_keeps_the_average_and_bounds_the_size():
    steps, values = plots.thin(np.arange(1.0, 1001.0), np.tile([0.0, 2.0], 500))
    assert len(steps) == len(values) == 334  # groups of three, the last of one
    assert steps[:2].tolist() == [2.0, 5.0]
    assert values[:2].tolist() == pytest.approx([2 / 3, 4 / 3])
    assert (steps[-1], values[-1]) == (1000.0, 2.0)


def test_plots_leave_matplotlibs_settings_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.reliability_diagram({"count": [3, 0, 2], "confidence": [0.5, None, 0.9], "accuracy": [0.4, None, 0.95]})
    assert dict(matplotlib.rcParams) == before
