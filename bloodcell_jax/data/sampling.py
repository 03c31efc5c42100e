"""The order in which training examples are seen: plans of indices, never copies of images.

A plan is an endless sequence of example indices, one epoch after the other. Step s takes the positions
[s * batch, (s + 1) * batch). The sequence is a pure function of (seed, position): a resumed run needs only its step,
and any number of processes agree without communication.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache

import numpy as np

from bloodcell_jax.config import Config, power_range
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.grouping import group_numbers
from bloodcell_jax.errors import UsageError

# These keys make the draws for each use of one seed independent.
_EPOCH_KEY, _SUBSET_KEY = 0xE90C, 0x5B5E7


@dataclass(frozen=True)
class Sampler:
    """An endless, reproducible sequence of example indices.

    Every epoch shows a fixed number of examples of each class. Each example of a class is shown once before any is
    shown again; for `groups`, this holds for each group of a class. The kinds differ in the numbers:

    - `natural`: all examples, each once.
    - `under`: `samples_per_class` of each class.
    - `over`: as many of each class as the largest class has.
    - `balanced`: equally many of each class; as many in all as there are examples.
    - `power`: class c with probability p_c ~ n_c^q; as many in all as there are examples. q = 1 is natural, q = 0 is
      balanced, q = 1/2 is the square-root sampling of Mahajan et al. (arXiv:1805.00932), and q that falls from 1 to 0
      is the progressively balanced sampling of Kang et al. (arXiv:1910.09217, 4).
    - `groups`: as many of each class as in natural, and within a class equally many of each group, such as a patient.

    Attributes:
      kind: one of the kinds above.
      by_class: the training examples of each class.
      seed: decides the subset and the order.
      samples_per_class: number of examples per class for `under`. The other kinds show nothing but so many of each.
      redraw: `under` takes another subset in each epoch; otherwise it takes always the same one.
      power: q of `power` in the first and in the last epoch; it is linear between them.
      epochs: total number of epochs, which q needs.
      groups: for `groups`, the group of each example of `by_class`, int.
    """

    kind: str
    by_class: tuple[np.ndarray, ...]
    seed: int
    samples_per_class: int | None = None
    redraw: bool = False
    power: tuple[float, float] = (1.0, 1.0)
    epochs: int = 1
    groups: tuple[np.ndarray, ...] = ()

    def __reduce__(self):
        # A sampler is sent to the processes that read; the permutations that it remembers stay here.
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    @property
    def counts(self) -> np.ndarray:
        """Number of training examples of each class, int64 [classes]."""
        return np.array([len(members) for members in self.by_class])

    @property
    def members(self) -> tuple[np.ndarray, ...]:
        """The examples of each class that epochs choose from."""
        if self.kind != "under" or self.redraw:
            return self.by_class
        return _subset(self.by_class, self.samples_per_class, self.seed)

    @property
    def epoch_size(self) -> int:
        """Number of examples that one epoch shows; it is the same for every epoch."""
        return int(self.quotas(0).sum())

    def quotas(self, epoch: int) -> np.ndarray:
        """Return how many examples of each class an epoch shows, int64 [classes]."""
        counts = self.counts
        if self.kind in ("natural", "groups"):
            return counts
        if self.kind == "under":
            return np.full_like(counts, self.samples_per_class)
        if self.kind == "over":
            return np.full_like(counts, counts.max())
        shares = counts ** self._power_of(epoch) * (counts > 0)
        return _apportion(int(counts.sum()), shares)

    def indices(self, start: int, stop: int) -> np.ndarray:
        """Return the example indices at the positions [start, stop), int32 [stop - start]."""
        size, pieces = self.epoch_size, []
        while start < stop:
            epoch, offset = divmod(start, size)
            pieces.append(self._order_of(epoch)[offset : offset + stop - start])
            start += len(pieces[-1])
        return np.concatenate(pieces)

    def _power_of(self, epoch: int) -> float:
        if self.kind == "balanced":
            return 0.0
        first, last = self.power
        return first + (last - first) * min(epoch / max(self.epochs - 1, 1), 1)

    @cached_property
    def _order_of(self) -> Callable[[int], np.ndarray]:
        # One epoch's permutation serves many steps; a batch that spans an epoch's end needs two.
        return lru_cache(maxsize=2)(self._draw_order)

    def _draw_order(self, epoch: int) -> np.ndarray:
        generator = _generator(self.seed, _EPOCH_KEY, epoch)
        if self.kind == "groups":
            rows = zip(self.members, self.groups, self.quotas(epoch), strict=True)
            chosen = [_repeat_groups_evenly(own, groups, n, generator) for own, groups, n in rows]
        else:
            rows = zip(self.members, self.quotas(epoch), strict=True)
            chosen = [_repeat_evenly(own, n, generator) for own, n in rows]
        return generator.permutation(np.concatenate(chosen)).astype(np.int32)


def sampler_of(config: Config, dataset: Dataset, train: np.ndarray) -> Sampler:
    """Return the sampler of a run's training split; errors as of `create_sampler`."""
    return create_sampler(
        config.data.sampler,
        dataset.labels,
        train,
        seed=config.seed,
        samples_per_class=config.data.samples_per_class,
        redraw=config.data.sampler_redraw,
        power=power_range(config.data.sampler_power),
        groups=None if dataset.groups is None else group_numbers(dataset.groups),
    )


def create_sampler(
    kind: str,
    labels: np.ndarray,
    train: np.ndarray,
    *,
    seed: int,
    samples_per_class: int | None = None,
    redraw: bool = False,
    power: tuple[float, float] = (1.0, 1.0),
    groups: np.ndarray | None = None,
) -> Sampler:
    """Create the sampler of a training split; see `Sampler`.

    Args:
      kind: as in `Sampler`, and so are the options that follow.
      labels: int [n], the class of every example.
      train: indices of the training examples.
      seed: decides the subset and the order.
      samples_per_class: as many labels of each class as training sees, or all where a class has fewer; None: all, or
        for `under` the size of the smallest class.
      redraw: as in `Sampler`.
      power: as in `Sampler`.
      groups: int [n], the group of every example; None if the data have none.

    Raises:
      UsageError: `under` asks for more examples than the smallest class has, or `groups` for groups that are not there.
    """
    if kind == "groups" and groups is None:
        raise UsageError(
            "config.data.sampler=groups: the source names no groups; set config.data.group_regex, or another sampler"
        )
    by_class = tuple(train[labels[train] == label] for label in range(int(labels.max()) + 1))
    smallest = min(len(members) for members in by_class)
    if samples_per_class is not None and kind != "under":
        by_class = _subset(by_class, samples_per_class, seed)
    elif samples_per_class is not None and samples_per_class > smallest:
        raise UsageError(
            f"config.data.samples_per_class={samples_per_class}: the smallest class has {smallest} training examples; "
            "give at most as many"
        )
    of_class = () if groups is None else tuple(groups[members] for members in by_class)
    return Sampler(kind, by_class, seed, samples_per_class or smallest, redraw, power, groups=of_class)


def _subset(by_class: tuple[np.ndarray, ...], count: int | None, seed: int) -> tuple[np.ndarray, ...]:
    """Return `count` examples of each class; a lower count gives a part of them."""
    generator = _generator(seed, _SUBSET_KEY)
    return tuple(generator.permutation(members)[:count] for members in by_class)


def _apportion(total: int, shares: np.ndarray) -> np.ndarray:
    """Return whole numbers in proportion to `shares` that add up to `total`, by largest remainders."""
    exact = total * shares / shares.sum()
    whole = np.floor(exact).astype(np.int64)
    most_cut = np.argsort(whole - exact, kind="stable")[: total - whole.sum()]
    whole[most_cut] += 1
    return whole


def _repeat_evenly(members: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Return `count` examples; each member occurs floor or ceil of count / len(members) times."""
    if not len(members):
        return members
    whole, rest = divmod(int(count), len(members))
    return np.concatenate([np.tile(members, whole), generator.permutation(members)[:rest]])


def _repeat_groups_evenly(
    members: np.ndarray, groups: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Return `count` examples; each group gives floor or ceil of count / number of groups, its members evenly."""
    _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    own = np.split(members[np.argsort(numbers, kind="stable")], np.cumsum(sizes)[:-1])
    shares = np.bincount(_repeat_evenly(np.arange(len(sizes)), count, generator), minlength=len(sizes))
    return np.concatenate([_repeat_evenly(some, n, generator) for some, n in zip(own, shares, strict=True)])


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *key])))
