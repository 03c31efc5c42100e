"""Acquisition shortcuts: traces of a camera or a stain in an image that could give a model the class away."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

# Area under the ROC curve, one class against the others, from which a statistic alone gives the class away. On the
# 13,663 real cells no background statistic exceeds 0.62 for any class. Sharpness, to which the texture of the cell
# contributes, does not exceed 0.79. A blur of one class by 0.7 pixels raises sharpness to 0.97.
_TELLING = {
    "background brightness": 0.75,
    "background blue less red": 0.75,
    "background green less red": 0.75,
    "sharpness": 0.9,
}
# The area of a few images says nothing, so it must also differ from 0.5 by this many standard errors.
_STANDARD_ERRORS = 4.0

# Statistics in which another acquisition shows as a group of its own, and the width by which modes are smoothed. It is
# smaller than the shift between two white balances and larger than the spread of one.
_MODES = {"background blue less red": 3.0, "background green less red": 3.0}
# A valley parts two modes if its density is below this share of the lower mode.
_VALLEY = 0.1
# A group has at least so many images, and at least this share of all.
_LEAST_GROUP, _LEAST_SHARE = 10, 0.002


class Telling(NamedTuple):
    """How well one statistic alone tells one class from the others.

    Attributes:
      statistic: name of the statistic.
      label: the class.
      auc: area under the ROC curve; 0.5 tells nothing, 0 and 1 tell everything.
      is_shortcut: the statistic tells more than cells do, so it likely shows the acquisition.
    """

    statistic: str
    label: int
    auc: float
    is_shortcut: bool


class AcquisitionGroup(NamedTuple):
    """Images that one statistic sets apart from the rest as a mode of its own.

    Attributes:
      statistic: name of the statistic.
      low: smallest value of the group.
      high: largest value of the group.
      indices: int [m], indices of the images.
      class_counts: int [classes], images of each class.
      association: Cramer's V between membership in the group and the class, 0 to 1.
      p_value: p-value of the chi-squared test that the group has the same classes as the rest.
    """

    statistic: str
    low: float
    high: float
    indices: np.ndarray
    class_counts: np.ndarray
    association: float
    p_value: float


def tellings(statistics: dict[str, np.ndarray], labels: np.ndarray) -> list[Telling]:
    """Return how well each statistic [n] tells each class from the others; there must be others."""
    from scipy.stats import rankdata

    found = []
    for name, values in statistics.items():
        ranks = rankdata(values)
        for label in np.unique(labels):
            own = labels == label
            count, others = own.sum(), (~own).sum()
            if others == 0:
                continue
            # The area is the Mann-Whitney statistic over the number of pairs.
            auc = float((ranks[own].sum() - count * (count + 1) / 2) / (count * others))
            standard_error = np.sqrt((len(values) + 1) / (12 * count * others))
            least = max(_TELLING.get(name, np.inf), 0.5 + _STANDARD_ERRORS * standard_error)
            found.append(Telling(name, int(label), auc, bool(max(auc, 1 - auc) >= least)))
    return found


def acquisition_groups(
    statistics: dict[str, np.ndarray], labels: np.ndarray, num_classes: int
) -> list[AcquisitionGroup]:
    """Return the groups of images that the background's color sets apart; the largest mode is no group."""
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
    """Return the rows of every mode of a distribution except the largest; deep valleys of the density part modes."""
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
            # This is still the same mode: the density rises, or the valley before was too shallow.
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
    statistic, p_value = np.array(chi2_contingency(table, correction=False)[:2])
    return float(np.sqrt(statistic / table.sum())), float(p_value)
