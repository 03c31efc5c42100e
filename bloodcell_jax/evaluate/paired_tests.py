"""Two models that judged the same examples: which is right more often, and how sure that is."""

from dataclasses import dataclass

import numpy as np

from bloodcell_jax.evaluate.intervals import Interval, ci95_of_difference


@dataclass(frozen=True)
class PairedResult:
    """The second of two models compared with the first.

    Attributes:
      n: examples that both judged.
      difference: accuracy of the second less that of the first.
      interval: 95 % interval of the difference; None if all examples are of one group.
      only_first, only_second: examples that this model alone has right.
      p_value: of McNemar's exact test; None if examples have groups, since the test takes them as independent.
      n_groups: groups of the examples; None: they have none.
    """

    n: int
    difference: float
    interval: Interval | None
    only_first: int
    only_second: int
    p_value: float | None
    n_groups: int | None


def compare_paired(
    first: np.ndarray, second: np.ndarray, *, groups: np.ndarray | None = None, seed: int = 0
) -> PairedResult:
    """Compare two models by the same examples.

    Args:
      first, second: whether each model is right, bool [n].
      groups: the group of each example, integers from 0, all of them used, [n]; None: examples are independent.
      seed: seed of the bootstrap.

    Raises:
      ValueError: no examples, or not of one shape.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape or not first.size:
        raise ValueError(f"{first.shape} and {second.shape} answers: expected [n] both, with n > 0")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    difference = second.astype(int) - first.astype(int)
    return PairedResult(
        n=len(first),
        difference=float(difference.mean()),
        interval=ci95_of_difference(difference, groups, seed),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar_exact(only_first, only_second) if groups is None else None,
        n_groups=None if groups is None else int(groups.max()) + 1,
    )


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test, in (0, 1].

    If both models are equally good, each example that one of them alone has right is as likely to be right in either:
    the counts are binomial with probability 1/2 (M. Fagerland et al., The McNemar test for binary matched-pairs data,
    BMC Medical Research Methodology 13:91 (2013), the exact conditional test). Its true rate of false alarms is at most
    the nominal one.

    Args:
      only_first, only_second: examples that this model alone has right.
    """
    from scipy.special import bdtr

    total = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), total, 0.5))) if total else 1.0
