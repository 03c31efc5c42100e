"""The average of the weights of several runs, a soup (M. Wortsman et al., "Model soups", ICML 2022, section 2)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.metrics import Scores, example_scores
from bloodcell_jax.models.network import Params
from bloodcell_jax.search.fold_run import FoldRun
from bloodcell_jax.weights.model_file import read_model_file, read_model_info, write_model_file
from bloodcell_jax.workdir import Workdir

_FROM_RANDOM = (
    "the runs start from random weights: networks trained apart from there do not share a valley of the loss, "
    "and the average of their weights answers at chance"
)


def cook_soups(workdir: Path, dataset: Dataset, runs: Sequence[FoldRun]) -> dict[str, Any]:
    """Average the folds of each seed if they start from the same pretrained weights, and score the average on test.

    Runs of one seed share the start of a new head as well; those of two seeds do not.

    Returns:
      `soup` of `crossval.json`: `reason`, why there is none, or null; `seeds`, the seed, the file and `test`, the
      scores or null, of each.
    """
    if runs[0].workdir.read_config().model.weights is None:
        return {"reason": _FROM_RANDOM, "seeds": []}
    soups = []
    for seed in sorted({run.seed for run in runs}):
        folders = [run.workdir for run in runs if run.seed == seed]
        path = workdir / "soup" / f"seed_{seed}.safetensors"
        path.parent.mkdir(exist_ok=True)
        params = write_soup(path, [folder.model for folder in folders])
        test = folders[0].read_splits().get("test")
        scores = None if test is None else _score(folders[0], params, dataset, test)
        soups.append({"seed": seed, "path": path.relative_to(workdir).as_posix(), "test": scores})
    return {"reason": None, "seeds": soups}


def write_soup(path: Path, models: Sequence[Path]) -> Params:
    """Write the mean of the parameters of models of one network as a model of its own, without calibration.

    Raises:
      DataError: a file is no model of a run.
      MachineError: the file cannot be written.
    """
    params = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *(read_model_file(model)[0] for model in models))
    record, info = read_model_info(models[0])
    if info is None:
        raise DataError(f"{models[0]}: does not say what weights it holds; run its command again")
    write_model_file(path, params, replace(record, metrics={}, calibration=None), info)
    return params


def _score(workdir: Workdir, params: Params, dataset: Dataset, indices: np.ndarray) -> Scores:
    classifier = Classifier(workdir.read_config(), params, step=0, workdir=None)
    probabilities = classifier.predict_examples(dataset.images, indices)
    return example_scores(dataset, indices, probabilities)
