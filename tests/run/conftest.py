"""The training of a run without what a job does before and after it."""

import contextlib

import pytest

from bloodcell_jax.run.evaluation import RunEvaluator
from bloodcell_jax.run.inputs import RunInputs
from bloodcell_jax.run.loop import Loop
from bloodcell_jax.run.tracking.feed import Feed
from bloodcell_jax.run.watch.preemption import StopSignals
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.checkpoints import Checkpoints
from bloodcell_jax.workdir.resume import step_to_resume


@pytest.fixture(scope="session")
def train_loop():
    """Return a function that trains a run in a folder, from its last checkpoint on."""

    def train_loop(run, folder, sinks=()):
        workdir, inputs = Workdir(folder), RunInputs(run)
        workdir.path.mkdir(exist_ok=True)
        with StopSignals() as signals, contextlib.closing(Checkpoints(workdir.checkpoints)) as checkpoints:
            first_step = step_to_resume(checkpoints.folders, run.total_steps)
            with Feed(workdir, run.config, sinks, first_step) as feed:
                evaluator = RunEvaluator(run, inputs)
                trained = Loop(run, workdir, checkpoints, signals, inputs, evaluator, feed, first_step).train()
                feed.commit(trained.step)

    return train_loop
