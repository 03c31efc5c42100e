"""What the verb `evaluate` does: a classifier's metrics on one split of a source."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bloodcell_jax.config import DataConfig
from bloodcell_jax.config.data import GEOMETRY
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.launch_cache import cached_sha256
from bloodcell_jax.data.loading import load_data
from bloodcell_jax.data.sources import knows_names
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.augmented_split import AUGMENTED, answer_as_they_are, answer_augmented
from bloodcell_jax.evaluate.class_map import ClassMap, match_classes, relabel
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.medmnist_results import is_medmnist, write_medmnist_results
from bloodcell_jax.evaluate.metrics import Scores
from bloodcell_jax.evaluate.outputs import write_split
from bloodcell_jax.evaluate.robustness.evaluate_suites import evaluate_suites
from bloodcell_jax.evaluate.robustness.suites import Suite, suite_of
from bloodcell_jax.evaluate.slices import read_slices
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.layout import EvaluationFolder

logger = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """What was written of an evaluated split.

    Attributes:
      folder: its files.
      scores: the content of `metrics.json`.
      suites: the content of each suite's file, by its name.
    """

    folder: EvaluationFolder
    scores: Scores
    suites: dict[str, dict[str, Any]]


def evaluate_source(
    classifier: Classifier,
    source: str | None,
    split: str | None,
    output: str | None,
    *,
    class_map: ClassMap | None = None,
    slices: Sequence[str] = (),
    suites: Sequence[str] = (),
    raw_names: bool = False,
    show: Callable[[int, int], None] = lambda done, total: None,
    **reading: Any,
) -> Evaluation:
    """Evaluate a classifier on one split of a source and write the split's files.

    Args:
      source: data source; None: the run's own.
      split: train, val, test or all; None: test, or val if there is no test (all for another source). With `_aug` at
        its end, such as val_aug: the same images, changed once by the augmentation of the run.
      output: folder for the files; None: eval/<split> of the workdir, for the run's own source alone.
      class_map: class of `source` -> class of the model, `drop` or None; other names match by themselves.
      slices: columns that are scored value by value, see `read_slices`; none: those of the run, on its own data.
      suites: names of suites of corruptions that are scored as well.
      raw_names: names in the CSVs are exact, even if a spreadsheet would run them as formulas.
      show: is told how many of all corrupted images are done.
      **reading: fields of `DataConfig` that say how `source` is read: skip_bad, include, exclude, class_level,
        split_folders, group_regex, columns, root and file_pattern. The run's own source is read as it was trained on.

    Raises:
      UsageError, DataError: as for training.
    """
    chosen = [suite_of(name) for name in dict.fromkeys(suites)]
    name, augmented = _named_split(split, chosen)
    _check_request(source, output, class_map)
    examples = _find_examples(classifier, source, name, class_map or {}, reading)
    dataset, indices = examples.dataset, examples.indices
    split = examples.split + AUGMENTED if augmented else examples.split
    origin = {"source": dataset.source, "split": split} | _way_of_answering(classifier, augmented) | examples.mapped
    of_examples = read_slices(dataset, slices or (classifier.config.evaluate.slices if source is None else ()))
    answer = answer_augmented if augmented else answer_as_they_are
    answers = answer(classifier, dataset, indices)
    folder = EvaluationFolder(Path(os.path.expanduser(output))) if output else _own_folder(classifier, split)
    scores = write_split(
        folder,
        dataset,
        indices,
        answers,
        step=classifier.step,
        calibration=classifier.calibration,
        holds_val=source is None and examples.split in ("val", "all"),
        origin=origin,
        slices=of_examples,
        raw_names=raw_names,
    )
    if examples.as_published and not augmented:
        run = classifier.workdir.path.resolve().name if classifier.workdir else "model"
        write_medmnist_results(folder, dataset.source, split, answers.probabilities, scores, run)
    clean = answers.probabilities.argmax(axis=1)
    results = evaluate_suites(classifier, dataset, indices, clean, chosen, folder, origin=origin, show=show)
    return Evaluation(folder, scores, results)


def _check_request(source: str | None, output: str | None, class_map: ClassMap | None) -> None:
    if source is None and class_map:
        raise UsageError("--class_map: belongs to --source; the run's own classes are the model's")
    if source is not None and output is None:
        raise UsageError("--output: missing; with --source the results need a folder of their own")


class _Examples(NamedTuple):
    """What is evaluated.

    Attributes:
      dataset: under the model's class names.
      indices: the examples.
      split: its name.
      mapped: what became of the classes of another source.
      as_published: these are the whole split of a published MedMNIST set, under its class names.
    """

    dataset: Dataset
    indices: np.ndarray
    split: str
    mapped: dict[str, Any]
    as_published: bool


def _find_examples(
    classifier: Classifier, source: str | None, split: str | None, class_map: ClassMap, reading: dict[str, Any]
) -> _Examples:
    dataset = _load(classifier, source, reading)
    split, indices = _split_of(classifier, dataset, None if source is None else dataset.splits, split)
    published = is_medmnist(dataset.source, split) and dataset.class_names == classifier.class_names
    if source is None:
        return _Examples(dataset, indices, split, {}, published)
    dataset, left, mapped = _under_model_names(dataset, indices, classifier.class_names, class_map)
    return _Examples(dataset, left, split, mapped, published and len(left) == len(indices))


def _way_of_answering(classifier: Classifier, augmented: bool) -> dict[str, Any]:
    """Return what `metrics.json` says of answers that are not those to the images as they are."""
    policy = {"augmented_by": classifier.config.augment.policy} if augmented else {}
    return policy | ({"tta": True} if classifier.tta else {})


def _named_split(split: str | None, suites: Sequence[Suite]) -> tuple[str | None, bool]:
    """Return the split of a name such as val or val_aug, and whether its images are augmented."""
    if split is None or not split.endswith(AUGMENTED):
        return split, False
    if suites:
        raise UsageError(f"--split={split}: a suite corrupts images as they are; name {split.removesuffix(AUGMENTED)}")
    return split.removesuffix(AUGMENTED), True


def _own_folder(classifier: Classifier, split: str) -> EvaluationFolder:
    """Return the folder of a split of the run; answers by test-time augmentation have one beside the plain ones."""
    return classifier.run.evaluation(f"{split}_tta" if classifier.tta else split)


def _split_of(
    classifier: Classifier, dataset: Dataset, own_splits: dict[str, np.ndarray] | None, split: str | None
) -> tuple[str, np.ndarray]:
    """Return the name and the examples of the split to evaluate; `own_splits` None: the data are the run's."""
    splits = {"all": np.arange(len(dataset), dtype=np.int32)}
    splits |= classifier.run.read_splits() if own_splits is None else own_splits
    if split is None:
        split = next(name for name in (("test", "val") if own_splits is None else ("all",)) if name in splits)
    if split not in splits:
        named = ", ".join([*splits, *(f"{each}{AUGMENTED}" for each in splits)])
        raise UsageError(f"--split={split}: {dataset.source} has {named}")
    return split, splits[split]


def _under_model_names(
    dataset: Dataset, indices: np.ndarray, class_names: tuple[str, ...], class_map: ClassMap
) -> tuple[Dataset, np.ndarray, dict[str, Any]]:
    """Return a dataset under the model's classes, those of `indices` that are left, and what became of the classes."""
    counts = dataset.class_counts()
    found = [name for name, count in zip(dataset.class_names, counts, strict=True) if count]
    mapping = match_classes(found, class_names, class_map, dataset.source)
    in_split = dict(zip(dataset.class_names, dataset.class_counts(indices).tolist(), strict=True))
    dropped = {name: in_split[name] for name in found if mapping[name] is None}
    dataset, indices = relabel(dataset, indices, mapping, class_names)
    return dataset, indices, {"class_map": mapping, "dropped": dropped}


def _load(classifier: Classifier, source: str | None, reading: dict[str, Any]) -> Dataset:
    config = replace(classifier.config.data, class_names=classifier.class_names)
    if source is not None:
        named = knows_names(source)
        if not named:
            in_order = ", ".join(f"{label} is {name}" for label, name in enumerate(config.class_names))
            logger.info("%s: labels are numbers without names; in the model's order %s", source, in_order)
        # Nothing that describes the tree of the run's own source holds for another one.
        own = DataConfig(
            source=source,
            data_dir=config.data_dir,
            class_names=() if named else config.class_names,
            **{name: getattr(config, name) for name in GEOMETRY},
        )
        dataset = load_data(replace(own, **reading))
        classifier.mention_geometry(dataset.original_sizes, dataset.sides)
        return dataset
    workdir = classifier.run
    dataset = load_data(config)
    _check_same_data(dataset, workdir)
    return dataset


def _check_same_data(dataset: Dataset, workdir: Workdir) -> None:
    trained_on = workdir.read_environment()["data"]["sha256"]
    if (now := cached_sha256(dataset)) != trained_on:
        raise DataError(
            f"{dataset.source}: not the data this run was trained on (sha256 {now[:12]}, then {trained_on[:12]}), so "
            "its splits are lost; name it by --source to evaluate on all of it"
        )
