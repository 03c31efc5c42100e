"""The order in which training examples are seen: index plans, never copies of images.

A plan is an endless stream of example indices, one epoch after the other; step s takes positions
[s * batch, (s + 1) * batch). It is a pure function of (seed, position), so resuming needs nothing but the step and
any number of processes agree without speaking.
"""

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np

from bloodcell_jax.errors import UsageError

# Keep the draws of each use of the seed apart.
_EPOCH_STREAM, _SUBSET_STREAM = 0xE90C, 0x5B5E7


@dataclass(frozen=True)
class Sampler:
    """An endless, reproducible stream of example indices.

    Every epoch shows a fixed number of examples of each class, each of them once before any comes a second time. The
    kinds differ in those numbers:

    - `natural`: all there are, each once.
    - `under`: `samples_per_class` of each class.
    - `over`: of each class as many as the largest has.
    - `balanced`: of each class as many, and as many in all as there are examples.
    - `power`: class c with probability p_c ~ n_c^q, as many in all as there are examples; q = 1 is natural, 0 is
      balanced, 1/2 the square-root sampling of Mahajan et al. (arXiv:1805.00932), and q that falls from 1 to 0 the
      progressively balanced sampling of Kang et al. (arXiv:1910.09217, 4).

    Attributes:
      kind: as above.
      by_class: the training examples of each class.
      seed: decides subset and order.
      samples_per_class: of `under`.
      redraw: `under` takes another subset in each epoch instead of the same one always.
      power: q of `power`, in the first and in the last epoch, linear between.
      epochs: how many there will be, for q.
    """

    kind: str
    by_class: tuple[np.ndarray, ...]
    seed: int
    samples_per_class: int | None = None
    redraw: bool = False
    power: tuple[float, float] = (1.0, 1.0)
    epochs: int = 1

    def __post_init__(self):
        # One epoch's permutation serves many steps; two are alive where a batch spans an epoch's end.
        object.__setattr__(self, "_epoch", lru_cache(maxsize=2)(self._draw_epoch))

    def __reduce__(self):
        # Sent to the processes that read; the permutations that it remembers stay here.
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    @property
    def counts(self) -> np.ndarray:
        """How many training examples each class has, int64 [classes]."""
        return np.array([len(members) for members in self.by_class])

    @property
    def members(self) -> tuple[np.ndarray, ...]:
        """The examples of each class that epochs choose from."""
        return self.by_class if self.kind != "under" or self.redraw else self._subset()

    @property
    def epoch_size(self) -> int:
        """How many examples one epoch shows; every epoch as many."""
        return int(self.quotas(0).sum())

    def quotas(self, epoch: int) -> np.ndarray:
        """Return how many examples of each class an epoch shows, int64 [classes]."""
        counts = self.counts
        if self.kind == "natural":
            return counts
        if self.kind == "under":
            return np.full_like(counts, self.samples_per_class)
        if self.kind == "over":
            return np.full_like(counts, counts.max())
        shares = counts ** self._power_of(epoch) * (counts > 0)
        return _apportion(int(counts.sum()), shares)

    def indices(self, start: int, stop: int) -> np.ndarray:
        """Return the example indices at stream positions [start, stop), int32 [stop - start]."""
        size, pieces = self.epoch_size, []
        while start < stop:
            epoch, offset = divmod(start, size)
            pieces.append(self._epoch(epoch)[offset : offset + stop - start])
            start += len(pieces[-1])
        return np.concatenate(pieces)

    def _power_of(self, epoch: int) -> float:
        if self.kind == "balanced":
            return 0.0
        first, last = self.power
        return first + (last - first) * min(epoch / max(self.epochs - 1, 1), 1)

    def _draw_epoch(self, epoch: int) -> np.ndarray:
        generator = _generator(self.seed, _EPOCH_STREAM, epoch)
        chosen = [_repeat_evenly(own, n, generator) for own, n in zip(self.members, self.quotas(epoch), strict=True)]
        return generator.permutation(np.concatenate(chosen)).astype(np.int32)

    def _subset(self) -> tuple[np.ndarray, ...]:
        generator = _generator(self.seed, _SUBSET_STREAM)
        return tuple(generator.permutation(members)[: self.samples_per_class] for members in self.by_class)


def create_sampler(
    kind: str,
    labels: np.ndarray,
    train: np.ndarray,
    *,
    seed: int,
    samples_per_class: int | None = None,
    redraw: bool = False,
    power: tuple[float, float] = (1.0, 1.0),
) -> Sampler:
    """Return the sampler over the `train` indices of examples labeled `labels`; see `Sampler`.

    Raises:
      UsageError: `under` asks for more examples than the smallest class has.
    """
    by_class = tuple(train[labels[train] == label] for label in range(int(labels.max()) + 1))
    smallest = min(len(members) for members in by_class)
    if samples_per_class is not None and samples_per_class > smallest:
        raise UsageError(
            f"config.data.samples_per_class={samples_per_class}: the smallest class has {smallest} training examples"
        )
    return Sampler(kind, by_class, seed, samples_per_class or smallest, redraw, power)


def _apportion(total: int, shares: np.ndarray) -> np.ndarray:
    """Return whole numbers in proportion to `shares` that add to `total`, by largest remainders."""
    exact = total * shares / shares.sum()
    whole = np.floor(exact).astype(np.int64)
    most_cut = np.argsort(whole - exact, kind="stable")[: total - whole.sum()]
    whole[most_cut] += 1
    return whole


def _repeat_evenly(members: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Return `count` examples in which each member stands floor or ceil of count / len(members) times."""
    if not len(members):
        return members
    whole, rest = divmod(int(count), len(members))
    return np.concatenate([np.tile(members, whole), generator.permutation(members)[:rest]])


def _generator(seed: int, *stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *stream])))
