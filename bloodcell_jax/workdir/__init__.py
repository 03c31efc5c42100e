"""A run on disk: the names of its files, its checkpoints, its log of metrics, and whether it may be resumed."""

from bloodcell_jax.workdir.layout import Workdir

__all__ = ["Workdir"]
