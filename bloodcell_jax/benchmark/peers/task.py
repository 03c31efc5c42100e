"""The task that a peer gets, and the programs that it returns."""

from collections.abc import Callable
from dataclasses import dataclass, field

from bloodcell_jax.config import OptimizerConfig
from bloodcell_jax.models.variants import Variant


@dataclass(frozen=True)
class Task:
    """The network and the step, the same for every peer.

    Attributes:
      name: timm's name of the network.
      variant: the network.
      num_classes: size of the head.
      image_size: side of the images in pixels.
      batch_size: images per step.
      stem_stride: stride of a patch stem.
      drop_path: rate of the last block.
      label_smoothing: share of the target that all classes get equally.
      dtype: precision of the computation; parameters are float32.
      optimizer: update rule with its options.
      parameters: number of parameters of our network.
      threads: number of threads on the CPU.
      seed: seed of weights and images.
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
      parameters: number of parameters of its network.
      versions: package -> version of the packages that it uses.
      train, inference: run a number of steps and wait for the last one.
      notes: differences from the task.
    """

    parameters: int
    versions: dict[str, str]
    train: Callable[[int], None]
    inference: Callable[[int], None]
    notes: list[str] = field(default_factory=list)


class CannotError(Exception):
    """A peer cannot run the task. The message says what it lacks."""
