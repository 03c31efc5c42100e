"""Stratified grouped k-fold cross-validation: a run for each seed and fold, and what they say together."""

import copy
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.config import Config, to_dict
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.launch_cache import cached_sha256
from bloodcell_jax.data.loading import load_data
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.metrics import METRICS, Scores, example_scores
from bloodcell_jax.evaluate.predictions_file import probabilities_of, read_predictions_of, write_predictions
from bloodcell_jax.report.crossval_page import write_crossval_page
from bloodcell_jax.run.job import train_and_evaluate
from bloodcell_jax.run.watch.preemption import StopSignals
from bloodcell_jax.search.fold_run import FoldRun
from bloodcell_jax.search.soup import cook_soups
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import read_json, write_json
from bloodcell_jax.workdir.own_files import check_results

logger = logging.getLogger(__name__)


def cross_validate(
    config: Config, workdir: str | Path, *, folds: int = 5, seeds: int = 1, signals: StopSignals | None = None
) -> dict[str, Any]:
    """Train a run for each fold and seed, and write what they say together; a second call resumes.

    All seeds share the folds and the test split, which never enters a fold.

    Args:
      config: of each run; `data.folds`, `data.fold`, `data.split_seed` and `seed` are set for it.
      workdir: holds `runs/seed_S_fold_F`, `crossval.json`, `out_of_fold.csv`, `index.html`, and soups if there are any.
      folds: number of folds, at least 2.
      seeds: number of seeds, from `config.seed` on.
      signals: as of `train_and_evaluate`.

    Returns:
      The content of `crossval.json`.

    Raises:
      UserError: as `train_and_evaluate`; the message names the run's folder.
    """
    if config.data.folds is not None:
        raise UsageError("config.data.folds: crossval sets it; leave it unset, and give --folds")
    workdir, runs = Path(workdir), []
    check_results(workdir, ("crossval.json", "out_of_fold.csv", "index.html"), begun=["runs"])
    for seed in range(config.seed, config.seed + seeds):
        for fold in range(folds):
            folder = Workdir(workdir / "runs" / f"seed_{seed}_fold_{fold}")
            logger.info("run %d of %d: seed %d, fold %d", len(runs) + 1, folds * seeds, seed, fold)
            train_and_evaluate(fold_config(config, seed, folds, fold), folder.path, signals=signals)
            runs.append(FoldRun(seed, fold, folder))
    dataset = load_data(config.data)
    content = {"folds": folds, "seeds": seeds, "config": to_dict(config), "runs": [_run(workdir, r) for r in runs]}
    content["metrics"] = {
        split: spread_of([run[split] for run in content["runs"]]) for split in content["runs"][0]["splits"]
    }
    content["out_of_fold"] = _write_out_of_fold(workdir / "out_of_fold.csv", dataset, runs)
    if "test" in content["metrics"]:
        indices, probabilities = mean_probabilities(dataset, runs, "test")
        content["ensemble"] = example_scores(dataset, indices, probabilities)
    content["soup"] = cook_soups(workdir, dataset, runs)
    write_json(workdir / "crossval.json", content)
    write_crossval_page(workdir / "index.html", content)
    return content


def fold_config(config: Config, seed: int, folds: int, fold: int) -> Config:
    """Return the configuration of one run: another seed changes what is drawn, but neither test nor folds."""
    config = copy.deepcopy(config)
    data = replace(config.data, split_seed=config.split_seed, folds=folds, fold=fold)
    return replace(config, seed=seed, data=data)


def _run(workdir: Path, run: FoldRun) -> dict[str, Any]:
    evaluations = run.workdir.evaluations()
    scores = {split: read_json(folder.metrics) for split, folder in evaluations.items() if split in ("val", "test")}
    facts = {"seed": run.seed, "fold": run.fold, "path": run.workdir.path.relative_to(workdir).as_posix()}
    return facts | {"splits": sorted(scores, reverse=True)} | {split: _numbers(of) for split, of in scores.items()}


def _numbers(scores: Scores) -> dict[str, float | None]:
    return {"n": scores["n"]} | {metric.key: scores[metric.key] for metric in METRICS}


def spread_of(scores: list[dict[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """Return the mean and the sample standard deviation of every metric over runs; null where a run has none."""
    spread = {}
    for metric in METRICS:
        values = [value for of_run in scores if (value := of_run[metric.key]) is not None]
        whole = len(values) == len(scores)
        spread[metric.key] = {
            "mean": float(np.mean(values)) if whole else None,
            "std": float(np.std(values, ddof=1)) if whole and len(values) > 1 else None,
        }
    return spread


def mean_probabilities(dataset: Dataset, runs: list[FoldRun], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the examples that runs judged in a split, ascending, and the mean of their probabilities.

    Raises:
      DataError: the data are not those of the runs, or a file of a run is damaged.
    """
    total, count = np.zeros((len(dataset), len(dataset.class_names))), np.zeros(len(dataset), int)
    data_hash = cached_sha256(dataset)
    for run in runs:
        if run.workdir.read_splits_record().get("data_sha256") != data_hash:
            raise DataError(f"{dataset.source}: is no longer what {run.workdir} was trained on; put the data back")
        indices = run.workdir.read_splits()[split]
        rows = read_predictions_of(run.workdir.evaluation(split), dataset, indices)
        total[indices] += probabilities_of(rows)
        count[indices] += 1
    judged = np.flatnonzero(count)
    return judged, total[judged] / count[judged, None]


def _write_out_of_fold(path: Path, dataset: Dataset, runs: list[FoldRun]) -> Scores:
    """Write the answers to each image by the runs that did not learn from it, and return their scores."""
    indices, probabilities = mean_probabilities(dataset, runs, "val")
    write_predictions(path, dataset, indices, probabilities)
    return example_scores(dataset, indices, probabilities)
