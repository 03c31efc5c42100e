"""What a line of the log says of speed: the share of waiting, and the FLOPs of all images that the network sees."""

import runpy
import time

import jax.numpy as jnp
import pytest

from bloodcell_jax.augment.policies import VIEWS
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.watch.meter import StageMeter, TrainingClock
from bloodcell_jax.run.watch.utilization import Utilization


@pytest.fixture(scope="module")
def run_of(config_file):
    """Return a function that creates the run of the tiny configuration, changed by another function."""

    def run_of(change=lambda config: None):
        config = runpy.run_path(str(config_file))["get_config"]()
        change(config)
        return create_run(config)

    return run_of


def test_waiting_before_a_checkpoint_is_of_no_line(run_of):
    """The seconds of the checkpoint's own step are not in the line either, so the share could be far above 1."""
    run = run_of()
    meter = StageMeter(run, run.stages[1], TrainingClock(0.0), 6)

    def batches():
        time.sleep(0.5)
        yield {}
        yield {}

    waiting = batches()
    meter.next_of(waiting)
    with meter.paused(7, jnp.zeros(())):
        pass
    meter.next_of(waiting)
    [line] = meter.lines(8, {"train/loss": jnp.float32(1.0)}, log=True, now=True)
    assert 0 <= line["perf/data_wait"] <= 1
    assert (line["step"], line["train/loss"]) == (8, 1.0)


def test_mfu_counts_every_view_of_the_consistency_loss(run_of):
    def with_views(config):
        config.augment.policy = "d4|augmix"
        config.augment.block = 2
        config.train.jsd = 12.0

    plain, views = (run_of(change) for change in (lambda config: None, with_views))
    of_plain, of_views = (Utilization.of_stage(run, run.stages[1]) for run in (plain, views))
    assert plain.stages[1].name == "all"
    assert of_views.flops_per_image == VIEWS * of_plain.flops_per_image
    # The head alone: the backward pass is shorter by what no formula says.
    assert Utilization.of_stage(plain, plain.stages[0]).mfu(100.0) is None
