"""Results in the form of MedMNIST's own evaluator."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from bloodcell_jax import cli
from bloodcell_jax.workdir.layout import EvaluationFolder


def test_an_official_split_leaves_the_evaluator_s_file(trained, cells, tmp_path):
    with np.load(cells) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    order = np.random.default_rng(0).permutation(len(images))
    parts = dict(zip(("train", "val", "test"), np.split(order, [60, 80]), strict=True))
    sets = {f"{split}_images": images[rows] for split, rows in parts.items()}
    sets |= {f"{split}_labels": labels[rows, None] for split, rows in parts.items()}
    np.savez(tmp_path / "cellmnist_64.npz", **sets)
    output = tmp_path / "scores"
    output.mkdir()
    # What an earlier evaluation left would be taken for this one.
    (output / "cellmnist_64_test_[AUC]0.500_[ACC]0.500@before.csv").write_text("0,1,0,0\n")
    source = f"--source=medmnist:{tmp_path / 'cellmnist_64.npz'}"
    command = ["bloodcell", "evaluate", f"--workdir={trained}", source, f"--output={output}"]
    assert cli.main([*command, "--split=test"]) == 0
    [path] = EvaluationFolder(output).medmnist_results()
    rows = np.loadtxt(path, delimiter=",")
    np.testing.assert_array_equal(rows[:, 0], np.arange(40))
    probabilities, truth = rows[:, 1:], labels[parts["test"]]
    area = np.mean([roc_auc_score(truth == c, probabilities[:, c]) for c in range(3)])
    accuracy = accuracy_score(truth, probabilities.argmax(1))
    assert path.name == f"cellmnist_64_test_[AUC]{area:.3f}_[ACC]{accuracy:.3f}@{trained.name}.csv"
    assert probabilities.sum(1) == pytest.approx(1)
    # No split of theirs, no file; and the folder is known as this library's own.
    assert cli.main([*command, "--split=all"]) == 0
    assert EvaluationFolder(output).medmnist_results() == []
