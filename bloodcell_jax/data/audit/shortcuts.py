"""Acquisition shortcuts: what a camera or a stain leaves in an image and a model could read the class from."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

# Areas under the ROC curve, against the other classes, from which a statistic alone gives a class away. On the
# 13,663 real cells no background statistic goes beyond 0.62 for any class, and sharpness, on which the texture of the
# cell has a part, not beyond 0.79; a blur of 0.7 pixels of one class takes sharpness to 0.97.
_TELLING = {
    "background brightness": 0.75,
    "background blue less red": 0.75,
    "background green less red": 0.75,
    "sharpness": 0.9,
}
# Of a few images an area says nothing: it must also differ from 0.5 by so many standard errors.
_STANDARD_ERRORS = 4.0

# Statistics in which another acquisition shows as a group of its own, with the width in which a mode is smoothed: less
# than the shift between two white balances, more than the spread of one.
_MODES = {"background blue less red": 3.0, "background green less red": 3.0}
# A valley this deep, against the lower of the two modes beside it, parts them.
_VALLEY = 0.1
# A group of its own has at least so many images, and this share of all.
_LEAST_GROUP, _LEAST_SHARE = 10, 0.002


class Telling(NamedTuple):
    """How well one statistic alone tells one class from the others.

    Attributes:
      statistic: its name.
      label: the class.
      auc: area under the ROC curve; 0.5 tells nothing, 0 and 1 everything.
      is_shortcut: it tells more than cells do, so that it is likely the acquisition.
    """

    statistic: str
    label: int
    auc: float
    is_shortcut: bool


class AcquisitionGroup(NamedTuple):
    """Images that one statistic sets apart from the rest as a mode of its own.

    Attributes:
      statistic: its name.
      low: least value of the group.
      high: largest value of the group.
      indices: int [m].
      class_counts: int [classes].
      association: Cramer's V between being in the group and the class, 0 to 1.
      p_value: of a chi-squared test that the group has the classes of the rest.
    """

    statistic: str
    low: float
    high: float
    indices: np.ndarray
    class_counts: np.ndarray
    association: float
    p_value: float


def tellings(statistics: dict[str, np.ndarray], labels: np.ndarray) -> list[Telling]:
    """Return, for each statistic [n] and each class with images of its own and of others, how well it tells it."""
    from scipy.stats import rankdata

    found = []
    for name, values in statistics.items():
        ranks = rankdata(values)
        for label in np.unique(labels):
            own = labels == label
            count, others = own.sum(), (~own).sum()
            if others == 0:
                continue
            # The Mann-Whitney statistic over the number of pairs.
            auc = float((ranks[own].sum() - count * (count + 1) / 2) / (count * others))
            standard_error = np.sqrt((len(values) + 1) / (12 * count * others))
            least = max(_TELLING.get(name, np.inf), 0.5 + _STANDARD_ERRORS * standard_error)
            found.append(Telling(name, int(label), auc, bool(max(auc, 1 - auc) >= least)))
    return found


def acquisition_groups(
    statistics: dict[str, np.ndarray], labels: np.ndarray, num_classes: int
) -> list[AcquisitionGroup]:
    """Return the groups of images, smaller than the rest together, that the background's color sets apart."""
    groups = []
    for name, width in _MODES.items():
        for members in _modes(statistics[name], width):
            values = statistics[name][members]
            counts = np.bincount(labels[members], minlength=num_classes)
            rest = np.bincount(labels, minlength=num_classes) - counts
            if not any(np.array_equal(members, group.indices) for group in groups):
                low, high = float(values.min()), float(values.max())
                groups.append(AcquisitionGroup(name, low, high, members, counts, *_association(counts, rest)))
    return groups


def _modes(values: np.ndarray, width: float) -> list[np.ndarray]:
    """Return the rows of every mode of a distribution but the largest: what deep valleys of its density part."""
    least = max(_LEAST_GROUP, _LEAST_SHARE * len(values))
    edges = np.arange(np.floor(values.min()) - 5 * width, np.ceil(values.max()) + 5 * width + 1)
    counts, _ = np.histogram(values, edges)
    offsets = np.arange(-int(4 * width), int(4 * width) + 1)
    density = np.convolve(counts, np.exp(-0.5 * (offsets / width) ** 2), mode="same")
    cuts = [-np.inf, *edges[_valleys(density)], np.inf]
    modes = [np.flatnonzero((values >= low) & (values < high)) for low, high in pairwise(cuts)]
    largest = max(map(len, modes))
    return [mode for mode in modes if least <= len(mode) < largest]


def _valleys(density: np.ndarray) -> list[int]:
    """Return the lowest place of every valley that parts two modes."""
    valleys, peak, lowest = [], 0.0, None
    for place, value in enumerate(density):
        if lowest is None or value < density[lowest]:
            lowest = place
        if value > peak and density[lowest] >= _VALLEY * peak:
            # Still on the same mode, or up from a valley too shallow to count.
            peak, lowest = value, place
        elif density[lowest] < _VALLEY * min(peak, value):
            valleys.append(lowest)
            peak, lowest = value, place
    return valleys


def _association(counts: np.ndarray, rest: np.ndarray) -> tuple[float, float]:
    """Return Cramer's V and the chi-squared test's p-value of two rows of counts by class."""
    from scipy.stats import chi2_contingency

    table = np.stack([counts, rest])
    table = table[:, table.any(axis=0)]
    test = chi2_contingency(table, correction=False)
    return float(np.sqrt(test.statistic / table.sum())), float(test.pvalue)
