"""What a peer is asked to run, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass, field

from bloodcell_jax.config import OptimizerConfig
from bloodcell_jax.models.variants import Variant


@dataclass(frozen=True)
class Task:
    """The network and the step, the same for every peer.

    Attributes:
      name: timm's.
      parameters: how many the network has here.
      dtype: of the computation; parameters are float32.
      threads: on the CPU.
    """

    name: str
    variant: Variant
    num_classes: int
    image_size: int
    batch_size: int
    stem_stride: int
    drop_path: float
    label_smoothing: float
    dtype: str
    optimizer: OptimizerConfig
    parameters: int
    threads: int
    seed: int = 0


@dataclass(frozen=True)
class PeerPrograms:
    """A peer, ready to run.

    Attributes:
      parameters: how many its network has.
      versions: of what it runs on.
      train, inference: run a number of steps and wait for the last.
      notes: what it does otherwise.
    """

    parameters: int
    versions: dict[str, str]
    train: Callable[[int], None]
    inference: Callable[[int], None]
    notes: list[str] = field(default_factory=list)


class CannotError(Exception):
    """A peer cannot run what is asked; the message says what it lacks."""
