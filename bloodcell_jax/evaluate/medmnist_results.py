"""Results of a MedMNIST split in the form of its own evaluator, for whoever compares results there.

J. Yang et al., MedMNIST v2, Scientific Data 10 (2023) 41: ACC is the accuracy of the largest score, AUC the mean over
the classes of the area under the ROC curve of one class against the rest. They are `accuracy` and `auc_macro_ovr`.
"""

from pathlib import Path

import numpy as np

from bloodcell_jax.data.dataset import SPLITS
from bloodcell_jax.evaluate.metrics import Scores
from bloodcell_jax.workdir.layout import EvaluationFolder
from bloodcell_jax.workdir.output_files import csv_writer, open_text

_SOURCE = "medmnist:"


def is_medmnist(source: str, split: str) -> bool:
    """Return whether images are an official split of a MedMNIST set."""
    return source.startswith(_SOURCE) and split in SPLITS


def write_medmnist_results(
    folder: EvaluationFolder, origin: dict[str, str], probabilities: np.ndarray, scores: Scores, run: str
) -> Path | None:
    """Write `SET_SPLIT_[AUC]0.999_[ACC]0.987@RUN.csv`: a row for each image, its number and its probabilities.

    Args:
      folder: where it is written.
      origin: with the `source` and the `split` of `is_medmnist`.
      probabilities: [n, classes] of the whole split in its order; columns in the order of the set.
      scores: of these probabilities.
      run: the name of the run; what the evaluator or a file system would stumble over becomes `_`.

    Returns:
      The file; None if the AUC is not defined, because a class has no image.

    Raises:
      MachineError: the file cannot be written.
    """
    if scores["auc_macro_ovr"] is None:
        return None
    name = Path(origin["source"].removeprefix(_SOURCE)).stem
    numbers = f"[AUC]{scores['auc_macro_ovr']:.3f}_[ACC]{scores['accuracy']:.3f}"
    run = "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in run)
    path = folder.path / f"{name}_{origin['split']}_{numbers}@{run}.csv"
    with open_text(path) as file:
        writer = csv_writer(file)
        for number, row in enumerate(probabilities.tolist()):
            writer.writerow([number, *row])
    return path
