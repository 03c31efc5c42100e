"""The examples that are evaluated: which images of which source, under which names of classes."""

import logging
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from bloodcell_jax.config import DataConfig
from bloodcell_jax.config.data import GEOMETRY, SCALE
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.launch_cache import cached_sha256
from bloodcell_jax.data.loading import load_data
from bloodcell_jax.data.sources import knows_names
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.class_map import ClassMap, match_classes, relabel
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.medmnist_results import is_medmnist
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.layout import AUGMENTED

logger = logging.getLogger(__name__)


class Examples(NamedTuple):
    """What is evaluated.

    Attributes:
      dataset: under the model's class names.
      indices: the examples.
      split: its name, with `_aug` at its end if its images are augmented.
      mapped: what became of the classes of another source.
      as_published: these are the whole split of a published MedMNIST set, under its class names.
      seen: how many of the examples are of each split of the model's run; empty if that is not known.
    """

    dataset: Dataset
    indices: np.ndarray
    split: str
    mapped: dict[str, Any]
    as_published: bool
    seen: dict[str, int]

    @property
    def augmented(self) -> bool:
        """Whether the augmentation of the run changes the images once."""
        return self.split.endswith(AUGMENTED)


def find_examples(
    classifier: Classifier, source: str | None, split: str | None, class_map: ClassMap, reading: dict[str, Any]
) -> Examples:
    """Return the examples to evaluate; the arguments and errors are those of `evaluate_source`."""
    dataset = load_examples(classifier, source, reading)
    own_splits = _splits_of_run(classifier, dataset, source)
    ending = AUGMENTED if split is not None and split.endswith(AUGMENTED) else ""
    split = split.removesuffix(AUGMENTED) if split is not None else None
    split, indices = _split_of(classifier, dataset, None if source is None else dataset.splits, split)
    seen = {name: int(np.isin(indices, own).sum()) for name, own in own_splits.items()}
    if source is not None and (count := seen.get("train")):
        logger.warning(
            "%s: %s of %s images were in train of %s, so scores on them say nothing of other cells; without --source, "
            "--split names the images that it has not seen",
            source,
            f"{count:,}",
            f"{len(indices):,}",
            classifier.run,
        )
    split += ending
    published = is_medmnist(dataset.source, split) and dataset.class_names == classifier.class_names
    if source is None:
        official = dataset.splits.get(split, np.zeros(0, np.int32))
        whole = classifier.config.data.clean is None and np.array_equal(indices, official)
        return Examples(dataset, indices, split, {}, published and whole, seen)
    dataset, left, mapped = _under_model_names(dataset, indices, classifier.class_names, class_map)
    return Examples(dataset, left, split, mapped, published and len(left) == len(indices), seen)


def _splits_of_run(classifier: Classifier, dataset: Dataset, source: str | None) -> dict[str, np.ndarray]:
    """Return the splits of the model's run if a dataset is what it was trained on, else none."""
    if source is None:
        return classifier.run.read_splits()
    if classifier.workdir is None:
        return {}
    trained_on = classifier.run.read_environment()["data"]
    # The number comes first: to hash images on the disk, all of them are read.
    same = trained_on.get("n", len(dataset)) == len(dataset) and trained_on["sha256"] == cached_sha256(dataset)
    return classifier.run.read_splits() if same else {}


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


def load_examples(classifier: Classifier, source: str | None, reading: dict[str, Any]) -> Dataset:
    """Return a source as `reading` says, or the run's own as it was trained on; the errors are those of training."""
    data = classifier.config.data
    config = replace(data, class_names=classifier.class_names, data_dir=reading.get("data_dir") or data.data_dir)
    if source is not None:
        named = knows_names(source)
        if not named:
            in_order = ", ".join(f"{label} is {name}" for label, name in enumerate(config.class_names))
            logger.info("%s: labels are numbers without names; in the model's order %s", source, in_order)
        # Nothing that describes the tree of the run's own source holds for another one.
        own = DataConfig(
            source=source,
            class_names=() if named else config.class_names,
            **{name: getattr(config, name) for name in GEOMETRY},
        )
        dataset = load_data(replace(own, **reading | {"data_dir": config.data_dir}))
        _mention_geometry(classifier, dataset)
        return dataset
    then = classifier.run.read_config().data
    as_trained = replace(config, **{name: getattr(then, name) for name in SCALE})
    dataset = load_data(as_trained)
    _check_same_data(dataset, classifier.run)
    return dataset if as_trained == config else load_data(config)


def _mention_geometry(classifier: Classifier, dataset: Dataset) -> None:
    """Log what is looked at of files and whether it fits the model; a prepared dataset knows the files it came from."""
    classifier.mention_geometry(dataset.original_sizes, dataset.sides)
    prepared = dataset.file_geometry if dataset.original_sizes is None else None
    if prepared is None or prepared.microns_per_pixel is not None:
        return
    shorter, side = prepared.view
    if reason := classifier.misfit(np.array([[shorter, shorter]]), np.array([side])):
        logger.warning("%s: %s", dataset.source, reason)


def _check_same_data(dataset: Dataset, workdir: Workdir) -> None:
    trained_on = workdir.read_environment()["data"]["sha256"]
    if (now := cached_sha256(dataset)) != trained_on:
        raise DataError(
            f"{dataset.source}: not the data this run was trained on (sha256 {now[:12]}, then {trained_on[:12]}), so "
            "its splits are lost; name it by --source to evaluate on all of it"
        )
