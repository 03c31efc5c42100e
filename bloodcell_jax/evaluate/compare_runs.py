"""Runs side by side: their scores on one split, what differs in their configurations, and paired comparisons."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.config import Config, leaves
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.groups import read_example_groups
from bloodcell_jax.evaluate.metrics import Scores
from bloodcell_jax.evaluate.paired_tests import PairedResult, compare_paired
from bloodcell_jax.evaluate.predictions_file import Prediction, read_predictions
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import read_json
from bloodcell_jax.workdir.records import check_scores

# Splits that are compared first, where all runs have evaluated them.
_PREFERRED = ("test", "val")


@dataclass(frozen=True)
class ComparedRun:
    """What is compared of a run.

    Attributes:
      name: of its folder, or the path that was given where two folders have one name.
      workdir: its folder.
      config: its resolved configuration.
      environment: content of `environment.json`; empty if there is none.
      splits: example indices by split; empty if there is no `splits.json`.
      judged: example indices of the split that is compared, in the order of `predictions`; empty if not known.
      scores: `metrics.json` of the split that is compared.
      predictions: rows of its `predictions.csv`; empty if there is none.
      groups: group of each example by id; empty if the split has none, None if they are not recorded.
    """

    name: str
    workdir: Workdir
    config: Config
    environment: Mapping[str, Any]
    splits: Mapping[str, np.ndarray]
    judged: np.ndarray
    scores: Scores
    predictions: list[Prediction]
    groups: Mapping[str, str] | None

    @property
    def data_hash(self) -> str | None:
        """The hash of its data; None if it is not known."""
        return self.environment["data"]["sha256"] if self.environment else None


@dataclass(frozen=True)
class RunPair:
    """A run compared with the first one: the result, or why there is none; and what to know of it."""

    run: ComparedRun
    result: PairedResult | None
    note: str | None


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
      split: the split whose scores are compared.
      runs: in the order in which they were given.
      pairs: each run but the first, compared with the first.
      differences: (field, text of its value in each run) of every field of the configurations that differs.
      warnings: why the comparison may be unfair.
    """

    split: str
    runs: list[ComparedRun]
    pairs: list[RunPair]
    differences: list[tuple[str, list[str]]]
    warnings: list[str]

    @property
    def class_names(self) -> list[str]:
        """The classes of all runs, in the order in which they first occur."""
        return list(dict.fromkeys(name for run in self.runs for name in run.scores["per_class"]))


def compare_runs(paths: Sequence[str | Path]) -> Comparison:
    """Compare runs on a split that all of them have evaluated: test, else val, else another.

    Args:
      paths: workdirs, two or more; the others are compared with the first.

    Raises:
      UsageError: fewer than two, the same one twice, or no such folder.
      DataError: a folder holds no run, the runs have evaluated no common split, or a file cannot be read.
    """
    _check_paths(paths)
    workdirs = [Workdir(os.path.expanduser(path)) for path in paths]
    configs = [workdir.read_config() for workdir in workdirs]
    split = _common_split(workdirs)
    names = [workdir.path.resolve().name for workdir in workdirs]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    runs = [_read_run(*of_run, split) for of_run in zip(names, workdirs, configs, strict=True)]
    return Comparison(
        split=split,
        runs=runs,
        pairs=[_compare_pair(runs[0], run) for run in runs[1:]],
        differences=_differences(configs),
        warnings=[warning for i, run in enumerate(runs) for other in runs[i + 1 :] for warning in _unfair(run, other)],
    )


def _check_paths(paths: Sequence[str | Path]) -> None:
    if len(paths) < 2:
        raise UsageError(f"--compare={''.join(map(str, paths))}: one run alone; name two or more workdirs")
    seen: dict[str, str | Path] = {}
    for path in paths:
        if not os.path.isdir(os.path.expanduser(path)):
            raise UsageError(f"--compare={path}: no such folder; name the workdirs of runs")
        place = os.path.realpath(os.path.expanduser(path))
        if place in seen:
            raise UsageError(f"--compare={path}: is the same folder as {seen[place]}; name each run once")
        seen[place] = path


def _common_split(workdirs: Sequence[Workdir]) -> str:
    evaluated = [workdir.evaluations() for workdir in workdirs]
    common = set.intersection(*map(set, evaluated))
    if not common:
        each = "; ".join(
            f"{workdir}: {', '.join(splits) or 'none'}" for workdir, splits in zip(workdirs, evaluated, strict=True)
        )
        raise DataError(f"--compare: no split that all runs have evaluated ({each}); evaluate them with --split")
    return next(split for split in (*_PREFERRED, *sorted(common)) if split in common)


def _read_run(name: str, workdir: Workdir, config: Config, split: str) -> ComparedRun:
    folder = workdir.evaluation(split)
    scores = check_scores(read_json(folder.metrics), folder.metrics)
    if folder.example_groups.exists():
        groups = read_example_groups(folder.example_groups)
    else:
        groups = None if scores.get("intervals_by") == "groups" else {}
    splits = workdir.read_splits() if workdir.splits.exists() else {}
    return ComparedRun(
        name=name,
        workdir=workdir,
        config=config,
        environment=workdir.read_environment() if workdir.environment.exists() else {},
        splits=splits,
        judged=splits.get(split, np.array([], np.int32)),
        scores=scores,
        predictions=read_predictions(folder),
        groups=groups,
    )


def _differences(configs: Sequence[Config]) -> list[tuple[str, list[str]]]:
    """Return the fields that are not equal in all configurations; a stage that a run does not have has a dash."""
    by_path = [{path: _as_text(value) for path, _, value in leaves(config)} for config in configs]
    paths = dict.fromkeys(path for values in by_path for path in values)
    rows = [(path, [values.get(path, "–") for values in by_path]) for path in paths]
    return [(path, values) for path, values in rows if len(set(values)) > 1]


def _as_text(value: Any) -> str:
    """Return a value as it stands on a command line."""
    if value is None:
        return "none"
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _compare_pair(first: ComparedRun, second: ComparedRun) -> RunPair:
    """Compare two runs by the examples that both judged, if these are the same."""
    why_not, note = _same_examples(first, second)
    if why_not is not None:
        return RunPair(second, None, why_not)
    if first.groups is None or second.groups is None:
        return RunPair(second, None, "an earlier version did not record the groups of the images; evaluate again")
    groups_of = first.groups or second.groups
    if groups_of and any(row.id not in groups_of for row in first.predictions):
        return RunPair(second, None, "example_groups.csv does not name all images; evaluate again")
    names = [groups_of[row.id] for row in first.predictions] if groups_of else None
    groups = None if names is None else np.unique(names, return_inverse=True)[1]
    theirs = {row.id: row.label == row.predicted for row in second.predictions}
    right = np.array([(row.label == row.predicted, theirs[row.id]) for row in first.predictions])
    return RunPair(second, compare_paired(right[:, 0], right[:, 1], groups=groups), note)


def _same_examples(first: ComparedRun, second: ComparedRun) -> tuple[str | None, str | None]:
    """Return why two runs did not judge the same examples (None: they did), and what that rests on."""
    for run in (first, second):
        if not run.predictions:
            return f"{run.name} has no predictions.csv", None
    ours, theirs = ({row.id: row.label for row in run.predictions} for run in (first, second))
    if ours.keys() != theirs.keys():
        common = len(ours.keys() & theirs.keys())
        return f"they judged different images: {len(ours):,} and {len(theirs):,}, {common:,} ids in common", None
    if relabeled := sum(ours[example] != theirs[example] for example in ours):
        return f"{relabeled:,} of {len(ours):,} images have different labels in the two runs", None
    if first.data_hash is not None and first.data_hash == second.data_hash:
        return None, None
    # Any two sources have an image number 7.
    if all(example.isdecimal() for example in ours) and first.config.data.source != second.config.data.source:
        return "ids are numbers, and the runs have different data", None
    return None, "The data hashes differ. The images are taken for the same because their ids and labels are equal."


def _unfair(first: ComparedRun, second: ComparedRun) -> list[str]:
    """Return what makes the comparison of two runs unfair: one learned from images that judge the other."""
    if not first.splits or not second.splits:
        return [
            f"{first.name} and {second.name}: without splits.json of both, nobody knows what each has learned from."
        ]
    if not _same_numbering(first, second):
        return [
            f"{first.name} and {second.name} have different data or readings of them: nobody knows whether one learned "
            "from images that judge the other."
        ]
    warnings = []
    for judged, learned in ((first, second), (second, first)):
        held_out = {split: indices for split, indices in judged.splits.items() if split != "train"}
        for split, indices in held_out.items():
            if seen := int(np.isin(indices, learned.splits.get("train", [])).sum()):
                warnings.append(
                    f"{seen:,} of {len(indices):,} {split} images of {judged.name} were in train of {learned.name}, so "
                    "the comparison is unfair. Give both runs the same splits."
                )
    return warnings


def _same_numbering(first: ComparedRun, second: ComparedRun) -> bool:
    """Return whether the indices of both `splits.json` mean the same examples."""
    if first.data_hash is None or second.data_hash is None:
        return False
    if first.data_hash == second.data_hash:
        return True
    if first.environment["data"].get("n") != second.environment["data"].get("n"):
        return False
    ours, theirs = _index_of_id(first), _index_of_id(second)
    common = ours.keys() & theirs.keys()
    return bool(common) and all(ours[example] == theirs[example] for example in common)


def _index_of_id(run: ComparedRun) -> dict[str, int]:
    """Return the index of each judged example; none if the split is another than the one that was judged."""
    if len(run.judged) != len(run.predictions):
        return {}
    return dict(zip((row.id for row in run.predictions), run.judged.tolist(), strict=True))
