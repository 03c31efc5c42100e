"""Which answers are explained: confident mistakes first, then answers that are nearly another."""

import numpy as np

from bloodcell_jax.evaluate.explain.chosen_cells import cells_to_explain, margins, most_confident_mistakes

PROBABILITIES = np.array(
    [
        [0.90, 0.06, 0.04],  # right
        [0.05, 0.80, 0.15],  # wrong
        [0.34, 0.33, 0.33],  # right, the least certain
        [0.10, 0.00, 0.90],  # wrong, the most confident
        [0.45, 0.40, 0.15],  # wrong, and not certain
        [0.20, 0.50, 0.30],  # right
    ]
)
LABELS = np.array([0, 0, 0, 1, 2, 1])


def test_mistakes_come_by_confidence_and_the_others_by_margin():
    assert most_confident_mistakes(LABELS, PROBABILITIES).tolist() == [3, 1, 4]
    np.testing.assert_allclose(margins(PROBABILITIES), [0.84, 0.65, 0.01, 0.80, 0.05, 0.20])
    mistakes, uncertain = cells_to_explain(LABELS, PROBABILITIES, 4)
    assert (mistakes.tolist(), uncertain.tolist()) == ([3, 1], [2, 4])


def test_no_cell_is_explained_twice_and_none_if_none_is_asked_for():
    mistakes, uncertain = cells_to_explain(LABELS, PROBABILITIES, 100)
    assert (mistakes.tolist(), uncertain.tolist()) == ([3, 1, 4], [2, 5, 0])
    assert [places.tolist() for places in cells_to_explain(LABELS, PROBABILITIES, 0)] == [[], []]
    mistakes, uncertain = cells_to_explain(PROBABILITIES.argmax(axis=1), PROBABILITIES, 3)
    assert (mistakes.tolist(), uncertain.tolist()) == ([], [2, 4, 5])
