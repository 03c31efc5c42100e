"""Which held-out images of a run its start has learned from: scores on them say nothing of new cells."""

from pathlib import Path

import numpy as np

from bloodcell_jax.errors import DataError
from bloodcell_jax.run.run import Run
from bloodcell_jax.weights.model_file import record_of_start
from bloodcell_jax.workdir import Workdir


def seen_by_start(run: Run) -> dict[str, int]:
    """Return how many images of each held-out split were in train of the run's start; none if nobody knows.

    They are known if the run starts from the workdir of another one, or from the model in it, and both have the same
    data.
    """
    splits = _splits_of_start(run)
    held_out = {name: indices for name, indices in run.splits.items() if name != "train"}
    counts = {name: int(np.isin(indices, splits.get("train", ())).sum()) for name, indices in held_out.items()}
    return {name: count for name, count in counts.items() if count}


def seen_sentence(run: Run) -> str | None:
    """Return what `seen_by_start` found, as a sentence; None if there are no such images."""
    seen = seen_by_start(run)
    if not seen:
        return None
    counted = " and ".join(f"{count:,} of {len(run.splits[name]):,} {name} images" for name, count in seen.items())
    return (
        f"{counted} were in train of {run.config.model.weights}, which this run starts from, so scores on them say "
        "nothing of new cells. Give both runs the same splits (config.seed, or config.data.split_seed)."
    )


def _splits_of_start(run: Run) -> dict[str, np.ndarray]:
    start = None if run.config.model.weights is None else record_of_start(run.config.model.weights)
    if start is None:
        return {}
    workdir = Workdir(Path(start[0]).parent)
    try:
        known = workdir.read_splits_record()
    except DataError:  # The file of a model alone.
        return {}
    return workdir.read_splits() if known.get("data_sha256") == run.data_hash else {}
