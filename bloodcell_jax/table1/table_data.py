"""The images of the table: a source with its splits and what an audit would leave out of it.

All models are tested on the same images, whatever they learn from. So the source is cut once, and written with its
splits. What the audit leaves out (planted images, duplicates, conflicting labels) is never in test, because nobody can
be right on it; raw training and validation images hold it.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.audit.findings import audit
from bloodcell_jax.data.cleaning import Removal, clean_file
from bloodcell_jax.data.dataset import SPLITS, Dataset, index_ids
from bloodcell_jax.data.loading import load_data
from bloodcell_jax.data.splits import split_dataset
from bloodcell_jax.errors import UsageError
from bloodcell_jax.report.audit_page import write_audit
from bloodcell_jax.whole_files import replacing
from bloodcell_jax.workdir.json_files import read_json_if_present, write_json
from bloodcell_jax.workdir.value_shapes import COUNT, TEXT, Each, check

logger = logging.getLogger(__name__)

_SPLIT_KEY = 0x7AB1


@dataclass(frozen=True)
class TableData:
    """The prepared images.

    Attributes:
      folder: holds `cells.npz`, `clean.json`, `data.json` and `audit/`.
      facts: the content of `data.json`: `source`, `sha256`, `n`, `image_size`, `class_names`; `removed`, the number of
        images by the reason why cleaned data do not have them; and for `raw` and `cleaned`, the number of images of
        each split and of each class in train.
    """

    folder: Path
    facts: dict[str, Any]

    def reading(self, *, cleaned: bool) -> dict[str, Any]:
        """Return the fields of `DataConfig` that read the images."""
        return {
            "source": f"medmnist:{self.folder / 'cells.npz'}",
            "class_names": tuple(self.facts["class_names"]),
            "image_size": self.facts["image_size"],
            "clean": str(self.folder / "clean.json") if cleaned else None,
        }

    def smallest_class(self, *, cleaned: bool) -> int:
        """Return the number of training images of the smallest class."""
        return min(self.facts["cleaned" if cleaned else "raw"]["classes"].values())


def prepare_data(config: DataConfig, folder: Path, *, seed: int = 0) -> TableData:
    """Audit a source, cut it and write it; a second call finds that done.

    Args:
      config: how the source is read.
      folder: for the files.
      seed: of the splits.

    Raises:
      UsageError: the source has groups, or splits without test; or the folder holds other images.
      DataError, MachineError: it cannot be read, or a file cannot be written.
    """
    dataset = load_data(config).in_memory()
    record = folder / "data.json"
    known = read_json_if_present(record)
    if known is not None:
        check(known, _SHAPE, record)
        _check_same(known, dataset, record)
        return TableData(folder, known)
    _check_source(dataset)
    logger.info("auditing %s images of %s", f"{len(dataset):,}", dataset.source)
    found = audit(dataset)
    logger.info("%s", found.verdict)
    write_audit(found, folder / "audit", config)
    copies = [cluster.indices for cluster in found.clusters]
    prepared, removals = cut(dataset, found.removals, copies, fractions=config.splits, seed=seed)
    arrays = {}
    for name in SPLITS:
        rows = prepared.splits[name]
        arrays |= {f"{name}_images": prepared.image_array()[rows], f"{name}_labels": prepared.labels[rows]}
    with replacing(folder / "cells.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    write_json(folder / "clean.json", clean_file(prepared, prepared.sha256(), removals))
    facts = _facts(dataset, found.sha256, prepared, removals)
    write_json(record, facts)
    return TableData(folder, facts)


_OF_DATA = {"splits": Each(value=COUNT), "classes": Each(value=COUNT)}
_SHAPE = {"source": TEXT, "sha256": TEXT, "n": COUNT, "image_size": COUNT, "class_names": [TEXT]}
_SHAPE |= {"removed": Each(value=COUNT), "raw": _OF_DATA, "cleaned": _OF_DATA}


def cut(
    dataset: Dataset,
    removals: list[Removal],
    copies: Sequence[Sequence[int]],
    *,
    fractions: tuple[float, ...],
    seed: int,
) -> tuple[Dataset, list[Removal]]:
    """Return the examples in the order train, val, test with these splits, and the removals under their new indices.

    Test holds none of the removals. Splits of the source are kept; what would be removed from its test is left out. A
    source without splits is cut without the removals, which are then dealt out to train and val as the other images,
    but for copies of what test holds.

    Args:
      dataset: the examples.
      removals: what cleaned data do not have.
      copies: the examples that show the same cell, in lists.
      fractions, seed: as of `split_dataset`.
    """
    removed = np.zeros(len(dataset), bool)
    removed[[removal.index for removal in removals]] = True
    kept = np.flatnonzero(~removed)
    splits = {name: kept[rows] for name, rows in split_dataset(dataset.select(~removed), fractions, seed=seed).items()}
    test = set(splits["test"].tolist())
    of_test = [index for same in copies if not test.isdisjoint(same) for index in same]
    splits |= _dealt_out(dataset, splits, np.setdiff1d(np.flatnonzero(removed), of_test), seed)
    order = np.concatenate([splits[name] for name in SPLITS])
    ends = np.cumsum([len(splits[name]) for name in SPLITS])
    places = {int(old): new for new, old in enumerate(order)}
    prepared = replace(
        dataset,
        images=dataset.image_array()[order],
        labels=dataset.labels[order],
        ids=index_ids(len(order)),
        splits={
            name: np.arange(end - len(splits[name]), end, dtype=np.int32)
            for name, end in zip(SPLITS, ends, strict=True)
        },
        original_sizes=None,
        sides=None,
        columns={},
    )
    there = [(places[removal.index], removal) for removal in removals if removal.index in places]
    return prepared, sorted(replace(removal, index=place, id=str(place)) for place, removal in there)


def _dealt_out(
    dataset: Dataset, splits: dict[str, np.ndarray], removed: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Return train and val with what cleaned data do not have."""
    learned = ("train", "val")
    if dataset.splits:
        own = {name: np.intersect1d(dataset.splits.get(name, []), removed).astype(int) for name in learned}
    else:
        sizes = [len(splits[name]) for name in learned]
        shuffled = np.random.default_rng([seed, _SPLIT_KEY]).permutation(removed)
        bound = round(len(removed) * sizes[0] / sum(sizes))
        own = dict(zip(learned, (shuffled[:bound], shuffled[bound:]), strict=True))
    return {name: np.sort(np.concatenate([splits[name], own[name]])) for name in learned}


def _check_source(dataset: Dataset) -> None:
    if dataset.groups is not None:
        raise UsageError(
            f"--source={dataset.source}: has groups, and the table takes images as independent; give a source without"
        )
    if dataset.splits and "test" not in dataset.splits:
        raise UsageError(
            f"--source={dataset.source}: has {' and '.join(dataset.splits)} and no test, on which the table "
            "tests; give a source with test, or without splits"
        )


def _check_same(known: dict[str, Any], dataset: Dataset, record: Path) -> None:
    if known["sha256"] != (now := dataset.sha256()):
        raise UsageError(
            f"{record}: made from {known['source']} (sha256 {known['sha256'][:12]}), and {dataset.source} has "
            f"{now[:12]}; give the same source, or another --workdir"
        )
    # The hash does not know the names of the classes.
    if (then := known["class_names"]) != (now := list(dataset.class_names)):
        raise UsageError(
            f"{record}: made with the classes {', '.join(then)}, which are now {', '.join(now)}; give the same "
            "--class_names, or another --workdir"
        )


def _facts(dataset: Dataset, sha256: str, prepared: Dataset, removals: list[Removal]) -> dict[str, Any]:
    cleaned = np.ones(len(prepared), bool)
    cleaned[[removal.index for removal in removals]] = False
    every = np.ones(len(prepared), bool)
    return {
        "source": dataset.source,
        "sha256": sha256,
        "n": len(dataset),
        "image_size": dataset.images.shape[1],
        "class_names": list(dataset.class_names),
        "removed": dict(Counter(removal.reason for removal in removals)),
        "raw": _counts(prepared, every),
        "cleaned": _counts(prepared, cleaned),
    }


def _counts(prepared: Dataset, kept: np.ndarray) -> dict[str, dict[str, int]]:
    rows = {name: indices[kept[indices]] for name, indices in prepared.splits.items()}
    classes = prepared.class_counts(rows["train"]).tolist()
    return {
        "splits": {name: len(indices) for name, indices in rows.items()},
        "classes": dict(zip(prepared.class_names, classes, strict=True)),
    }
