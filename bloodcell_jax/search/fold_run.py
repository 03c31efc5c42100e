"""One run of a cross-validation."""

from dataclasses import dataclass

from bloodcell_jax.workdir import Workdir


@dataclass(frozen=True)
class FoldRun:
    """The run of a seed and a fold."""

    seed: int
    fold: int
    workdir: Workdir
