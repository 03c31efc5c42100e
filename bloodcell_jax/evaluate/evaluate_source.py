"""What the verb `evaluate` does: a classifier's metrics on one split of a source."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.config import DataConfig
from bloodcell_jax.config.data import GEOMETRY
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.launch_cache import cached_sha256
from bloodcell_jax.data.loading import load_data
from bloodcell_jax.data.sampling import sampler_of
from bloodcell_jax.data.sources import knows_names
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.answers import Answers
from bloodcell_jax.evaluate.class_map import ClassMap, match_classes, relabel
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.explain.embedding_map import EmbeddingSample, check_method
from bloodcell_jax.evaluate.explain.explained_split import Explanations, explain_split
from bloodcell_jax.evaluate.explain.training_neighbors import TrainingImages
from bloodcell_jax.evaluate.medmnist_results import is_medmnist, write_medmnist_results
from bloodcell_jax.evaluate.metrics import Scores
from bloodcell_jax.evaluate.out_of_distribution import reference_of
from bloodcell_jax.evaluate.outputs import write_split
from bloodcell_jax.evaluate.slices import read_slices
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.layout import EvaluationFolder

logger = logging.getLogger(__name__)


def evaluate_source(
    classifier: Classifier,
    source: str | None,
    split: str | None,
    output: str | None,
    *,
    class_map: ClassMap | None = None,
    slices: Sequence[str] = (),
    explain: int | None = None,
    embedding_method: str = "pca",
    raw_names: bool = False,
    **reading: Any,
) -> tuple[EvaluationFolder, Scores]:
    """Evaluate a classifier on one split of a source, write the split's files, and return their folder and the metrics.

    Args:
      source: data source; None: the run's own.
      split: train, val, test or all; None: test, or val if there is no test (all for another source).
      output: folder for the files; None: eval/<split> of the workdir, for the run's own source alone.
      class_map: class of `source` -> class of the model, `drop` or None; other names match by themselves.
      slices: columns that are scored value by value, see `read_slices`; none: those of the run, on its own data.
      explain: images that the page explains; None: as many as `evaluate.explain` of the run says.
      embedding_method: of the map of the split, see `embedding_map`.
      raw_names: names in the CSVs are exact, even if a spreadsheet would run them as formulas.
      **reading: fields of `DataConfig` that say how `source` is read: skip_bad, include, exclude, class_level,
        split_folders, group_regex, columns, root and file_pattern. The run's own source is read as it was trained on.

    Raises:
      UsageError, DataError: as for training.
    """
    _check_asked(source, output, class_map, embedding_method)
    dataset = _load(classifier, source, reading)
    split, indices = _split_of(classifier, dataset, None if source is None else dataset.splits, split)
    origin: dict[str, Any] = {"source": dataset.source, "split": split}
    whole = len(indices)
    as_published = is_medmnist(dataset.source, split) and dataset.class_names == classifier.class_names
    if source is not None:
        dataset, indices, mapped = _under_model_names(dataset, indices, classifier.class_names, class_map or {})
        origin |= mapped
    of_examples = read_slices(dataset, slices or (classifier.config.evaluate.slices if source is None else ()))
    learned_from = dataset if source is None else None
    answers, explanations = _explained_answers(classifier, dataset, indices, learned_from, explain, embedding_method)
    folder = EvaluationFolder(Path(os.path.expanduser(output))) if output else classifier.run.evaluation(split)
    scores = write_split(
        folder,
        dataset,
        indices,
        answers,
        step=classifier.step,
        calibration=classifier.calibration,
        holds_val=source is None and split in ("val", "all"),
        origin=origin,
        slices=of_examples,
        raw_names=raw_names,
        explanations=explanations,
    )
    if as_published and len(indices) == whole:
        run = classifier.workdir.path.resolve().name if classifier.workdir else "model"
        write_medmnist_results(folder, dataset.source, split, answers.probabilities, scores, run)
    return folder, scores


def _check_asked(source: str | None, output: str | None, class_map: ClassMap | None, embedding_method: str) -> None:
    """Refuse what cannot be done, before anything is read."""
    if source is None and class_map:
        raise UsageError("--class_map: belongs to --source; the run's own classes are the model's")
    if source is not None and output is None:
        raise UsageError("--output: missing; with --source the results need a folder of their own")
    check_method(embedding_method)


def _split_of(
    classifier: Classifier, dataset: Dataset, own_splits: dict[str, np.ndarray] | None, split: str | None
) -> tuple[str, np.ndarray]:
    """Return the name and the examples of the split to evaluate; `own_splits` None: the data are the run's."""
    splits = {"all": np.arange(len(dataset), dtype=np.int32)}
    splits |= classifier.run.read_splits() if own_splits is None else own_splits
    if split is None:
        split = next(name for name in (("test", "val") if own_splits is None else ("all",)) if name in splits)
    if split not in splits:
        raise UsageError(f"--split={split}: {dataset.source} has {', '.join(splits)}")
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


def _explained_answers(
    classifier: Classifier,
    dataset: Dataset,
    indices: np.ndarray,
    learned_from: Dataset | None,
    count: int | None,
    embedding_method: str,
) -> tuple[Answers, Explanations]:
    """Return the answers to some examples and what explains them; `learned_from` is that of `_training_images`."""
    sample = EmbeddingSample(len(indices))
    count = classifier.config.evaluate.explain if count is None else count
    logger.info("evaluating %s images and explaining %d of them", f"{len(indices):,}", min(count, len(indices)))
    answers = classifier.answer_examples(dataset.images, indices, sample=sample)
    explanations = explain_split(
        classifier.outputs_and_grad_cam,
        dataset,
        indices,
        answers.probabilities,
        sample,
        lambda: _training_images(classifier, learned_from),
        count=count,
        batch_size=classifier.batch_size,
        method=embedding_method,
    )
    return answers, explanations


def _training_images(classifier: Classifier, dataset: Dataset | None) -> TrainingImages:
    """Return the images that the calibration keeps the features of; `dataset` is the run's own, None: not read yet.

    Raises:
      UsageError, DataError, MachineError: they are not at hand; says why.
    """
    if classifier.workdir is None:
        raise DataError("the file of a model does not hold the images of its run; evaluate by --workdir instead")
    if classifier.calibration is None:
        raise DataError("this checkpoint has no calibration, which keeps the features of training images")
    if dataset is None:
        logger.info("%s: reading it for the nearest training images", classifier.config.data.source)
        dataset = _load(classifier, None, {})
    sampler = sampler_of(classifier.config, dataset, classifier.run.read_splits()["train"])
    indices = reference_of(sampler, dataset.labels, seed=classifier.config.seed)
    return TrainingImages(dataset, indices, classifier.calibration.reference.features)


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
