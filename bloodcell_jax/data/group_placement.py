"""Placing groups of examples in parts, such as train, val and test: the parts shall hold the same mix of classes."""

import numpy as np

# Beyond so many groups, the greedy placement alone is within 0.5 % of the wanted shares, and exchanges take seconds.
_MOST_EXCHANGED = 1000


def place_groups(counts: np.ndarray, wanted: np.ndarray, units: np.ndarray, *, exchange: bool) -> np.ndarray:
    """Return the part of each group, int [groups].

    Each group goes to the part that it brings closest to what the part should hold, in the order of the groups. Groups
    then move to other parts, and two change places, as long as the parts come closer to what is wanted.

    Args:
      counts: [groups, classes], the examples of each class in each group; the largest group comes first.
      wanted: [parts, classes], the examples that each part should hold.
      units: [classes], the number of groups and of single examples that have each class.
      exchange: False leaves out the second step.
    """
    held, parts, units = np.zeros_like(wanted), np.empty(len(counts), int), units.copy()
    for group, own in enumerate(counts):
        parts[group] = part = _best_part(own, held, wanted, units)
        held[part] += own
        units -= own > 0
    if exchange and len(counts) <= _MOST_EXCHANGED:
        _exchange(parts, counts, held, wanted)
    return parts


def _best_part(counts: np.ndarray, held: np.ndarray, wanted: np.ndarray, units: np.ndarray) -> int:
    """Return the part that a group goes to.

    This is the part in which the group most reduces the squared relative distance from what is wanted. If a class has
    no more units left than there are parts without it, those parts come first.

    Args:
      counts: [classes], the group's examples of each class.
      held: [parts, classes], the examples that each part holds so far.
      wanted: [parts, classes], the examples that each part should hold.
      units: [classes], the groups and single examples that are left.
    """
    lacks = (held == 0) & (wanted > 0) & (counts > 0)
    must = (lacks & (units <= lacks.sum(0))).any(1)
    scale = np.maximum(wanted, 1)
    gain = ((held - wanted + counts) / scale) ** 2 - ((held - wanted) / scale) ** 2
    # A part that should stay empty takes nothing.
    cost = np.where(wanted.any(1), gain.sum(1), np.inf)
    return int(np.argmin(np.where(must, cost, np.inf) if must.any() else cost))


def _exchange(parts: np.ndarray, counts: np.ndarray, held: np.ndarray, wanted: np.ndarray) -> None:
    """Change `parts`: move groups, or swap two, as long as the parts come closer to what is wanted.

    Args:
      parts: [groups], the part of each group.
      counts: [groups, classes], the examples of each class in each group.
      held: [parts, classes], the examples that the parts hold.
      wanted: [parts, classes], the examples that each part should hold.
    """
    best, improved = _distance(held, wanted), True
    while improved:
        improved = False
        for group in range(len(parts)):
            here = parts[group]
            others, elsewhere = np.flatnonzero(parts != here), np.delete(np.arange(len(held)), here)
            # A group changes places with each other one, or with nothing.
            places = np.concatenate([parts[others], elsewhere])
            change = np.concatenate([counts[others], np.zeros((len(elsewhere), counts.shape[1]), int)]) - counts[group]
            trials = np.repeat(held[None], len(places), axis=0)
            trials[:, here] += change
            trials[np.arange(len(places)), places] -= change
            distances = _distance(trials, wanted)
            nearest = int(np.argmin(distances))
            if distances[nearest] < best - 1e-9:
                best, held, improved = distances[nearest], trials[nearest], True
                parts[group] = places[nearest]
                if nearest < len(others):
                    parts[others[nearest]] = here


def _distance(held: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the squared relative distance from what is wanted, [...] of [..., parts, classes].

    A part that lacks a class counts more than any distance.
    """
    lacks = ((held == 0) & (wanted > 0)).sum((-1, -2))
    return (((held - wanted) / np.maximum(wanted, 1)) ** 2).sum((-1, -2)) + 1e9 * lacks
