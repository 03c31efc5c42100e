"""How long a checkpoint stops the loop, and how long it takes until its files are complete."""

import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import jax

from bloodcell_jax.benchmark.programs import TrainingStep
from bloodcell_jax.workdir.checkpoints import Checkpoints

_SAVES = 3


def measure_checkpoint(step: TrainingStep) -> dict[str, float]:
    """Measure three checkpoints of a state.

    Returns:
      `bytes` of the state, and the medians of the seconds that the loop waits, `pause_s`, and of the seconds until the
      files are complete, `written_s`.
    """
    pauses, totals = [], []
    jax.block_until_ready(step.trees)
    with (
        tempfile.TemporaryDirectory(prefix="bloodcell-benchmark-") as folder,
        contextlib.closing(Checkpoints(Path(folder))) as checkpoints,
    ):
        for number in range(_SAVES):
            start = time.perf_counter()
            checkpoints.save(number, step.trees, {"metrics": {}, "seconds": 0.0})
            pauses.append(time.perf_counter() - start)
            checkpoints.wait()
            totals.append(time.perf_counter() - start)
    return {
        "bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(step.trees)),
        "pause_s": statistics.median(pauses),
        "written_s": statistics.median(totals),
    }
