"""Which held-out images of a run its start has learned from: scores on them say nothing of new cells."""

import os
from pathlib import Path

import numpy as np

from bloodcell_jax.errors import DataError
from bloodcell_jax.run.run import Run
from bloodcell_jax.weights.info import MODEL_NAME
from bloodcell_jax.workdir import Workdir

# A longer chain of starts is a loop.
_MOST_STARTS = 16


def seen_by_start(run: Run) -> dict[str, int]:
    """Return how many images of each held-out split were in train of the run's start, or of what that started from.

    They are known if the run starts from the workdir of another one, or from the model in it, and both have the same
    data: by their hash, or by their source and its number of images, which another image size leaves as they are.
    """
    learned = _learned_from(run.config.model.weights, run, depth=0)
    held_out = {name: indices for name, indices in run.splits.items() if name != "train"}
    counts = {name: int(np.isin(indices, learned).sum()) for name, indices in held_out.items()}
    return {name: count for name, count in counts.items() if count}


def seen_sentence(run: Run) -> str | None:
    """Return what `seen_by_start` found, as a sentence; None if there are no such images."""
    seen = seen_by_start(run)
    if not seen:
        return None
    counted = " and ".join(f"{count:,} of {len(run.splits[name]):,} {name} images" for name, count in seen.items())
    return (
        f"{counted} were in train of {run.config.model.weights}, which this run starts from, or of its own start, so "
        "scores on them say nothing of new cells. Give both runs the same splits (config.data.split_seed)."
    )


def _learned_from(weights: str | None, run: Run, depth: int) -> np.ndarray:
    """Return the images that weights and what they started from have learned from, as indices of the run's data."""
    nothing = np.zeros(0, np.int32)
    workdir = None if weights is None or depth == _MOST_STARTS else _workdir_of(weights)
    if workdir is None:
        return nothing
    try:
        config, data, splits = workdir.read_config(), workdir.read_environment()["data"], workdir.read_splits()
    except DataError:  # A part of it is gone.
        return nothing
    same = (config.data.source, data.get("n")) == (run.config.data.source, len(run.dataset))
    own = splits.get("train", nothing) if same or data["sha256"] == run.data_hash else nothing
    return np.union1d(own, _learned_from(config.model.weights, run, depth + 1))


def _workdir_of(weights: str) -> Workdir | None:
    """Return the run that weights are, by its folder or the model in it; None if they are anything else.

    Nothing is downloaded for that: published weights have seen no image of a run.
    """
    path = Path(os.path.expanduser(weights))
    folder = path.parent if path.name == MODEL_NAME and path.is_file() else path
    return Workdir(folder) if folder.is_dir() else None
