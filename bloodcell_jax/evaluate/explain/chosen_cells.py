"""Which images of a split are worth a closer look."""

import numpy as np


def most_confident_mistakes(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the places of all wrong answers, the most confident first, int [m].

    Args:
      labels: [n].
      probabilities: [n, classes].
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities.max(axis=1)[wrong], kind="stable")]


def least_certain(probabilities: np.ndarray) -> np.ndarray:
    """Return the places of all answers, that of the smallest margin first, int [n]; see `margins`."""
    return np.argsort(margins(probabilities), kind="stable")


def margins(probabilities: np.ndarray) -> np.ndarray:
    """Return by how much the likeliest class leads the second one, [n]: small where the answer is nearly another.

    Margin sampling (T. Scheffer, C. Decomain and S. Wrobel, Active hidden Markov models for information extraction, IDA
    2001).
    """
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    return first - second


def cells_to_explain(labels: np.ndarray, probabilities: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the mistakes and of the uncertain answers that are explained, `count` in all if there are.

    Half of them are the most confident mistakes, or fewer if the model makes fewer. The others are the least certain
    answers among the rest.
    """
    mistakes = most_confident_mistakes(labels, probabilities)[: count // 2]
    others = least_certain(probabilities)
    return mistakes, others[~np.isin(others, mistakes)][: count - len(mistakes)]
