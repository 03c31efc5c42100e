"""The range test: a learning rate is read off the losses of a short run whose rate rises (L. Smith 2015, section 3.3).

Cyclical learning rates, arXiv:1506.01186. The smoothing, the end of the test and what is read off are those of fastai's
`lr_find` (Howard and Gugger 2020, arXiv:2002.04688), with its constants.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import optax

_SMOOTHING = 0.98
# A smoothed loss of so many times the lowest one ends the test.
_DIVERGED = 4.0
# The first tenth of the steps and the last five say more of the smoothing than of the rates.
_LEFT_OUT_LAST = 5
# Of an average that falls less, nothing is read off: with nothing learned, that of `quickstart` varies by 0.7 %.
LEAST_FALL = 0.02


class Readings(NamedTuple):
    """Learning rates that a range test suggests.

    Attributes:
      steepest: where the smoothed loss falls fastest over the logarithm of the rate; the suggestion.
      valley: the middle of the longest fall of the smoothed loss.
      before_lowest: a tenth of the rate at which the smoothed loss is lowest; it diverges soon after that rate.
    """

    steepest: float
    valley: float
    before_lowest: float


def rising_rates(lowest: float, highest: float, steps: int) -> optax.Schedule:
    """Return a schedule that rises from one rate to another in so many steps, by the same factor in each."""
    return optax.exponential_decay(lowest, steps - 1, highest / lowest)


def smoothed(losses: Sequence[float]) -> np.ndarray:
    """Return the exponential moving average of losses, corrected for its start, [n]."""
    average, averages = 0.0, []
    for count, loss in enumerate(losses, 1):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        averages.append(average / (1 - _SMOOTHING**count))
    return np.array(averages)


def has_diverged(losses: Sequence[float]) -> bool:
    """Return whether the last loss ends the test: it is not finite, or the smoothed loss is four times the lowest."""
    if not math.isfinite(losses[-1]):
        return True
    averages = smoothed(losses)
    return bool(averages[-1] > _DIVERGED * averages.min())


def read_off(rates: Sequence[float], losses: Sequence[float], steps: int) -> Readings | None:
    """Return the rates that a test suggests; None if the smoothed loss falls by less than `LEAST_FALL` of its start.

    Args:
      rates: of the steps, rising, [n].
      losses: finite, [n].
      steps: of the whole test, n or more.
    """
    used = slice(steps // 10, max(0, len(losses) - _LEFT_OUT_LAST))
    averages, kept = smoothed(losses)[used], np.asarray(rates, float)[used]
    if len(averages) < 3 or averages.min() > (1 - LEAST_FALL) * averages[0]:
        return None
    slopes = np.diff(averages) / np.diff(np.log(kept))
    return Readings(
        steepest=float(kept[slopes.argmin()]),
        valley=float(kept[_middle_of_longest_fall(averages)]),
        before_lowest=float(kept[averages.argmin()] / 10),
    )


def _middle_of_longest_fall(values: np.ndarray) -> int:
    """Return the middle of the longest falling subsequence, which is taken to be without gaps up to its end."""
    lengths = np.ones(len(values), int)
    for i in range(1, len(values)):
        higher_before = lengths[:i][values[:i] > values[i]]
        lengths[i] = 1 + higher_before.max(initial=0)
    end = int(lengths.argmax())
    length = int(lengths[end])
    third = length / 3
    return end - length + int(third) + int(third / 2)
