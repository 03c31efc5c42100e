"""For how long a checkpoint stops the loop, and how long its files take behind the loop's back."""

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
    """Return the state's bytes, the pause of the loop and the time until the files are whole: medians of 3 saves."""
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
