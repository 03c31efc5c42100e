"""The files of an audit: `audit.json`, `clean.json`, and the page `index.html`, which needs no other file."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bloodcell_jax.config import DataConfig, leaves
from bloodcell_jax.data.audit.clusters import CONFLICT, DUPLICATE, PLANTED, Cluster
from bloodcell_jax.data.audit.findings import Audit
from bloodcell_jax.data.audit.shortcuts import AcquisitionGroup, Telling
from bloodcell_jax.data.cleaning import clean_file
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.image_files import encode_jpeg
from bloodcell_jax.errors import MachineError, UsageError
from bloodcell_jax.names import shell_word
from bloodcell_jax.report.rendering import jpeg_address, render, write_page
from bloodcell_jax.workdir.json_files import write_json

# Findings of one kind, and images of one cluster, that the page shows. audit.json lists all of them.
_MOST_SHOWN, _MOST_OF_A_CLUSTER = 24, 8


def create_output(output: str | Path) -> Path:
    """Return the folder for the files of an audit, and create it if it is missing.

    Raises:
      UsageError: the path is a file.
      MachineError: the folder cannot be created.
    """
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output={folder}: is a file; name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"--output={folder}: cannot be created ({error.strerror}); choose another folder") from error
    return folder


def write_audit(audit: Audit, output: str | Path, config: DataConfig | None = None) -> Path:
    """Write the files of an audit into a folder, and return the path of the page.

    Args:
      audit: what to write.
      output: the folder; it is created if it is missing.
      config: how the source was read, for the command on the page; None: by the defaults.

    Raises:
      UsageError: `output` is a file.
      MachineError: a file cannot be written.
    """
    folder = create_output(output)
    try:
        write_json(folder / "audit.json", audit.to_dict())
        write_json(folder / "clean.json", clean_file(audit.dataset, audit.sha256, audit.removals))
    except OSError as error:
        raise MachineError(f"--output={folder}: cannot be written ({error.strerror}); make room") from error
    page = folder / "index.html"
    if config is None:
        config = DataConfig(source=audit.dataset.source, image_size=audit.dataset.images.shape[1])
    write_page(page, _render(audit, train_command(config, folder)))
    return page


def train_command(config: DataConfig, folder: Path) -> str:
    """Return the command that reads the source as the audit did and trains without the images in `clean.json`."""
    words = ["bloodcell", "train", "--config=pbc_scratch", "--workdir=runs/clean"]
    for path, field, value in leaves(dataclasses.replace(config, clean=str(folder / "clean.json"))):
        if value != field.default:
            words.append(f"--config.data.{path}={'none' if value is None else value}")
    return " ".join(map(shell_word, words))


def _render(audit: Audit, command: str) -> str:
    dataset = audit.dataset
    clusters = {
        kind: [cluster for cluster in audit.clusters if cluster.kind == kind] for kind in (PLANTED, CONFLICT, DUPLICATE)
    }
    return render(
        "audit.html",
        audit=audit,
        dataset=dataset,
        command=command,
        most_shown=_MOST_SHOWN,
        clusters={kind: [_cluster(dataset, c) for c in found[:_MOST_SHOWN]] for kind, found in clusters.items()},
        counts={kind: len(found) for kind, found in clusters.items()},
        removed={kind: sum(removal.reason == kind for removal in audit.removals) for kind in clusters},
        leaks=[_cluster(dataset, cluster) for cluster in audit.leaks[:_MOST_SHOWN]],
        similar=[
            {"images": _images(dataset, pair[:2]), "correlation": pair.correlation}
            for pair in audit.similar[:_MOST_SHOWN]
        ],
        outliers=_outliers(audit),
        groups=[_acquisition_group(dataset, group) for group in audit.acquisition_groups],
        statistics=_statistics(audit),
        label_errors=_label_errors(audit),
        balance=_balance(dataset),
    )


def _cluster(dataset: Dataset, cluster: Cluster) -> dict:
    shown = cluster.indices[:1] if cluster.kind == PLANTED else cluster.indices[:_MOST_OF_A_CLUSTER]
    return cluster._asdict() | {"n": len(cluster.indices), "images": _images(dataset, shown)}


def _images(dataset: Dataset, indices: Iterable[int]) -> list[dict]:
    return [
        {
            "src": jpeg_address(encode_jpeg(dataset.images[index])),
            "id": dataset.ids[index],
            "index": int(index),
            "label": dataset.class_names[dataset.labels[index]],
            "split": next((name for name, own in dataset.splits.items() if index in own), ""),
        }
        for index in indices
    ]


def _acquisition_group(dataset: Dataset, group: AcquisitionGroup) -> dict:
    rest = dataset.class_counts() - group.class_counts
    rows = [
        {"name": name, "inside": int(inside), "share": inside / len(group.indices), "outside": outside / rest.sum()}
        for name, inside, outside in zip(dataset.class_names, group.class_counts, rest, strict=True)
    ]
    # Spread over the group, because the examples of a class often stand together.
    shown = group.indices[np.linspace(0, len(group.indices) - 1, min(12, len(group.indices))).astype(int)]
    return group._asdict() | {"n": len(group.indices), "rows": rows, "images": _images(dataset, shown)}


def _statistics(audit: Audit) -> dict[str, list[Telling]]:
    """Return the tellings of each statistic, by its name."""
    rows: dict[str, list[Telling]] = {}
    for telling in audit.tellings:
        rows.setdefault(telling.statistic, []).append(telling)
    return rows


def _outliers(audit: Audit) -> list[dict]:
    shown = audit.outliers[:_MOST_SHOWN]
    images = _images(audit.dataset, [outlier.index for outlier in shown])
    return [image | {"distance": outlier.distance} for outlier, image in zip(shown, images, strict=True)]


def _label_errors(audit: Audit) -> list[dict] | None:
    if audit.label_errors is None:
        return None
    names = audit.dataset.class_names
    shown = audit.label_errors[:_MOST_SHOWN]
    images = _images(audit.dataset, [error.index for error in shown])
    return [
        image | {"suggested": names[error.suggested], "margin": error.margin}
        for error, image in zip(shown, images, strict=True)
    ]


def _balance(dataset: Dataset) -> list[dict]:
    counts = dataset.class_counts()
    splits = {name: dataset.class_counts(indices) for name, indices in dataset.splits.items()}
    return [
        {
            "name": name,
            "count": int(counts[i]),
            "share": counts[i] / max(counts.max(), 1),
            "splits": {split: int(own[i]) for split, own in splits.items()},
        }
        for i, name in enumerate(dataset.class_names)
    ]
