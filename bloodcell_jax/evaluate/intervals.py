"""95 % intervals of scores by the bootstrap: of examples, or of whole groups such as patients.

Examples of one patient, slide or staining resemble each other. Resampling them one by one takes a hundred cells of one
patient for a hundred patients, and the interval is too narrow. Where groups are known, whole groups are resampled.
"""

import math

import numpy as np

from bloodcell_jax.evaluate.confusion import precision_recall_f1

RESAMPLES = 1_000
# Resamples at a time: memory stays flat however many groups there are.
_BATCH = 50
# A standard error below this is rounding.
_NO_SPREAD = 1e-9
# The normal distribution has 95 % within so many standard deviations.
_NORMAL_95 = 1.959964
# [lower, upper]
Interval = list[float]


def ci95_by_examples(confusion: np.ndarray, seed: int) -> tuple[Interval, Interval]:
    """Return the percentile intervals of accuracy and macro F1.

    Both scores depend on the confusion matrix alone, and the matrix of n examples drawn with replacement is a
    multinomial draw of its cells: the same distribution at the cost of k * k numbers instead of n. The macro F1 of a
    draw is the mean over the classes that it has, as that of the score is.
    Without a single error there is nothing to resample: the accuracy's interval is [1, 1], too narrow.
    """
    rng = np.random.default_rng(seed)
    cells = np.nonzero(confusion)
    n = confusion.sum()
    resample = np.zeros_like(confusion)
    scores = np.empty((RESAMPLES, 2))
    for i in range(RESAMPLES):
        resample[cells] = rng.multinomial(n, confusion[cells] / n)
        scores[i] = np.trace(resample) / n, precision_recall_f1(resample)[2][resample.any(axis=1)].mean()
    accuracy, f1_macro = np.percentile(scores, [2.5, 97.5], axis=0).T.tolist()
    return accuracy, f1_macro


def ci95_by_groups(
    labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, num_classes: int, seed: int
) -> tuple[Interval | None, Interval | None]:
    """Return the intervals of accuracy and macro F1 over resamples of whole groups; None with a single group.

    They are studentized (bootstrap-t: B. Efron and R. Tibshirani, An introduction to the bootstrap (1993), chapter 12).
    Percentiles of a few dozen groups are too close to each other and know nothing of the skew near 100 %.

    Args:
      labels, predicted: integers in [0, num_classes), [n].
      groups: integers from 0, all of them used, [n].
      num_classes: k.
      seed: seed of the draws.
    """
    count = int(groups.max()) + 1
    if count < 2:
        return None, None
    support, said, hits = _counts_by_group(labels, predicted, groups, num_classes)
    present = support.any(axis=0)
    accuracy = hits.sum(axis=1, keepdims=True), support.sum(axis=1, keepdims=True)
    f1 = 2 * hits[:, present], (support + said)[:, present], support[:, present]
    return _studentized(*accuracy, accuracy[1], seed), _studentized(*f1, seed)


def ci95_of_difference(difference: np.ndarray, groups: np.ndarray | None, seed: int) -> Interval | None:
    """Return the interval of the mean of paired differences, over resamples of examples or of whole groups.

    Both members of a pair are drawn together. Percentiles for examples, studentized for groups; None with one group.

    Args:
      difference: -1, 0 or 1: right in the second run less right in the first, [n].
      groups: integers from 0, all of them used, [n]; None: examples are independent.
      seed: seed of the draws.
    """
    n = len(difference)
    if groups is not None:
        if (count := int(groups.max()) + 1) < 2:
            return None
        sums, sizes = (np.bincount(groups, weights, count)[:, None] for weights in (difference, None))
        return _studentized(sums, sizes, sizes, seed, least=-1)
    shares = np.array([(difference == value).mean() for value in (-1, 0, 1)])
    draws = np.random.default_rng(seed).multinomial(n, shares, RESAMPLES)
    return np.percentile((draws[:, 2] - draws[:, 0]) / n, [2.5, 97.5]).tolist()


def class_ci95(
    labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray | None, num_classes: int, seed: int
) -> tuple[list[Interval | None], list[Interval | None]]:
    """Return the intervals of the sensitivity and of the specificity of each class, [k] each.

    With groups they are those of resampled groups; None with fewer than two groups that have such examples. Without,
    and where all groups have the same share and resampling shows no spread, they are `wilson`'s; None where a class has
    no example.

    Args:
      labels, predicted: integers in [0, num_classes), [n].
      groups: integers from 0, all of them used, [n]; None: examples are independent.
      num_classes: k.
      seed: seed of the draws.
    """
    numbers = np.zeros(len(labels), int) if groups is None else groups
    support, said, hits = _counts_by_group(labels, predicted, numbers, num_classes)
    others = support.sum(axis=1, keepdims=True) - support
    rejected = others - (said - hits)

    def interval(right: np.ndarray, among: np.ndarray) -> Interval | None:
        if groups is None:
            return wilson(right.sum() / max(among.sum(), 1), int(among.sum()))
        rows = among > 0
        right, among = right[rows, None], among[rows, None]
        if len(right) < 2:
            return None
        return with_width(_studentized(right, among, among, seed), len(right))

    sensitivity, specificity = (
        [interval(*columns) for columns in zip(right.T, among.T, strict=True)]
        for right, among in ((hits, support), (rejected, others))
    )
    return sensitivity, specificity


def _counts_by_group(
    labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how many examples are of each class, are said to be, and are both, [groups, k] each."""
    count = int(groups.max()) + 1
    right = labels == predicted
    support, said, hits = (
        np.bincount(groups[rows] * num_classes + classes[rows], minlength=count * num_classes).reshape(count, -1)
        for rows, classes in ((slice(None), labels), (slice(None), predicted), (right, labels))
    )
    return support, said, hits


def wilson(share: float, count: int) -> Interval | None:
    """Return the interval of a share of `count` examples, which keeps a width without an error; None of no example.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927) 209.
    """
    if not count:
        return None
    spread = _NORMAL_95**2 / count
    half = _NORMAL_95 * math.sqrt(share * (1 - share) / count + spread / count / 4)
    low, high = ((share + spread / 2 + sign * half) / (1 + spread) for sign in (-1, 1))
    return [max(low, 0.0), min(high, 1.0)]


def with_width(interval: Interval | None, count: int) -> Interval | None:
    """Return an interval of a share; `wilson`'s of `count` units if resampling them showed no spread."""
    if interval is None or interval[1] - interval[0] > _NO_SPREAD:
        return interval
    return wilson(interval[0], count)


def _studentized(
    numerators: np.ndarray, denominators: np.ndarray, support: np.ndarray, seed: int, least: float = 0
) -> Interval:
    """Return the interval of the mean of ratios of sums, which are in [least, 1]; see `_mean_of_ratios`."""
    count = len(numerators)
    sums = numerators, denominators, support
    (estimate,), (error,) = _mean_of_ratios(np.ones((1, count)), *sums)
    if error < _NO_SPREAD:
        return [float(estimate), float(estimate)]
    rng = np.random.default_rng(seed)
    batches = [_mean_of_ratios(_resample(count, rng), *sums) for _ in range(RESAMPLES // _BATCH)]
    values, errors = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    spread = errors > _NO_SPREAD
    if spread.mean() < 0.975:
        # Errors, or a class, in a few groups alone: many resamples have none, so they say nothing of their own spread.
        tail = 100 * expanded_tail(count)
        return np.percentile(values, [tail, 100 - tail]).tolist()
    low, high = np.percentile((values[spread] - estimate) / errors[spread], [2.5, 97.5])
    return np.clip([estimate - high * error, estimate - low * error], least, 1).tolist()


def _resample(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each of `count` groups is drawn, [_BATCH, count]."""
    drawn = rng.integers(count, size=(_BATCH, count)) + count * np.arange(_BATCH)[:, None]
    return np.bincount(drawn.ravel(), minlength=_BATCH * count).reshape(_BATCH, count)


def _mean_of_ratios(
    weights: np.ndarray, numerators: np.ndarray, denominators: np.ndarray, support: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over j of sum(weight * numerator) / sum(weight * denominator), and its standard error, [b] each.

    The mean is over the j that a resample has support of: a class that it has no example of has no score. The standard
    error is that of the linearized mean, between groups; 0 for a resample that lacks a j, which is the mean of others.

    Args:
      weights: how often each resample has each group, [b, groups].
      numerators, denominators, support: of each group, [groups, j].
    """
    count = len(numerators)
    top, bottom, present = weights @ numerators, weights @ denominators, weights @ support > 0
    inverse = np.divide(1, bottom, out=np.zeros(bottom.shape), where=present)
    ratios, terms = top * inverse, present.sum(axis=1)
    influence = numerators @ inverse.T - denominators @ (ratios * inverse).T
    variance = np.einsum("bg,gb->b", weights, influence**2) * count / (count - 1) / terms**2
    return ratios.sum(axis=1) / terms, np.where(present.all(axis=1), np.sqrt(variance), 0)


def expanded_tail(count: int) -> float:
    """Return the probability below the lower end of an expanded percentile interval of `count` units; 0.025 for many.

    It makes up for a spread that is too small by the factor (count - 1) / count, and for its being an estimate
    (T. Hesterberg, What teachers should know about the bootstrap, The American Statistician 69 (2015) 371).
    """
    from scipy.special import ndtr, stdtrit

    return float(ndtr(math.sqrt(count / (count - 1)) * stdtrit(count - 1, 0.025)))
