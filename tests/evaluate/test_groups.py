"""A differential count of each group beside the labeled one."""

import numpy as np

from bloodcell_jax.evaluate.groups import GroupScores, read_groups, score_groups, write_groups

NAMES = ("red", "green")


def test_scores_of_groups_by_hand():
    groups = ["b", "a", "b", "b", "b"]
    scores = score_groups(groups, np.array([0, 1, 0, 1, 1]), np.array([0, 1, 1, 1, 1]), 2)
    assert scores == [
        GroupScores("a", 1, 1.0, (0.0, 1.0), (0.0, 1.0)),
        GroupScores("b", 4, 0.75, (0.5, 0.5), (0.25, 0.75)),
    ]


def test_groups_csv_is_read_as_it_was_written(tmp_path):
    scores = score_groups(['a "quoted", name', "ü"], np.array([0, 1]), np.array([1, 1]), 2)
    write_groups(tmp_path / "groups.csv", scores, NAMES)
    assert read_groups(tmp_path / "groups.csv") == scores
    header = (tmp_path / "groups.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "group,n,accuracy,labeled red,predicted red,labeled green,predicted green"
