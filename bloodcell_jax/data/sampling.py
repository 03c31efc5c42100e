"""The order in which training examples are seen: index plans, never copies of pictures.

A plan is an endless stream of example indices, one epoch after the other; step s takes positions
[s * batch, (s + 1) * batch). It is a pure function of (seed, position), so resuming needs nothing but the step and
any number of processes agree without speaking.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bloodcell_jax.errors import UsageError

# Keep the draws of each use of the seed apart.
_EPOCH_STREAM, _SUBSET_STREAM = 0xE90C, 0x5B5E7


@dataclass(frozen=True)
class Sampler:
    """An endless, reproducible stream of example indices.

    Attributes:
      kind: `natural` (each example once an epoch), `under` (the same `samples_per_class` of each class in every
        epoch) or `over` (each class as often as the largest, its examples repeated evenly).
      by_class: the training examples of each class.
      seed: decides subset and order.
      samples_per_class: of `under`.
    """

    kind: str
    by_class: tuple[np.ndarray, ...]
    seed: int
    samples_per_class: int | None = None

    def __post_init__(self):
        # One epoch's permutation serves many steps; two are alive where a batch spans an epoch's end.
        object.__setattr__(self, "_epoch", lru_cache(maxsize=2)(self._draw_epoch))

    @property
    def epoch_size(self) -> int:
        """How many examples one epoch shows."""
        counts = [len(members) for members in self.by_class]
        if self.kind == "under":
            return len(counts) * self.samples_per_class
        return max(counts) * len(counts) if self.kind == "over" else sum(counts)

    def indices(self, start: int, stop: int) -> np.ndarray:
        """Return the example indices at stream positions [start, stop), int32 [stop - start]."""
        size, pieces = self.epoch_size, []
        while start < stop:
            epoch, offset = divmod(start, size)
            pieces.append(self._epoch(epoch)[offset : offset + stop - start])
            start += len(pieces[-1])
        return np.concatenate(pieces)

    def _draw_epoch(self, epoch: int) -> np.ndarray:
        generator = _generator(self.seed, _EPOCH_STREAM, epoch)
        if self.kind == "under":
            chosen = self._subset()
        elif self.kind == "over":
            largest = max(len(members) for members in self.by_class)
            chosen = [_repeat_evenly(members, largest, generator) for members in self.by_class]
        else:
            chosen = self.by_class
        return generator.permutation(np.concatenate(chosen)).astype(np.int32)

    def _subset(self) -> list[np.ndarray]:
        generator = _generator(self.seed, _SUBSET_STREAM)
        return [generator.permutation(members)[: self.samples_per_class] for members in self.by_class]


def create_sampler(
    kind: str, labels: np.ndarray, train: np.ndarray, *, seed: int, samples_per_class: int | None = None
) -> Sampler:
    """Return the sampler over the `train` indices of examples labelled `labels`.

    Raises:
      UsageError: `under` asks for more examples than the smallest class has.
    """
    by_class = tuple(train[labels[train] == label] for label in range(int(labels.max()) + 1))
    smallest = min(len(members) for members in by_class)
    if samples_per_class is not None and samples_per_class > smallest:
        raise UsageError(
            f"config.data.samples_per_class={samples_per_class}: the smallest class has {smallest} training examples"
        )
    return Sampler(kind, by_class, seed, samples_per_class or smallest)


def _repeat_evenly(members: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Return `count` examples in which each member stands floor or ceil of count / len(members) times."""
    whole, rest = divmod(count, len(members))
    return np.concatenate([np.tile(members, whole), generator.permutation(members)[:rest]])


def _generator(seed: int, *stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *stream])))
