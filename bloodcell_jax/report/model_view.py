"""What pages show of a model itself: its data, its training and its configuration, from the files of its run."""

import base64
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from bloodcell_jax.config import to_dict
from bloodcell_jax.config.stage_names import unique_names
from bloodcell_jax.regular_files import check_regular_file
from bloodcell_jax.report import plots
from bloodcell_jax.weights.info import info_to_dict
from bloodcell_jax.weights.model_file import read_model_info
from bloodcell_jax.workdir import Workdir


def run_view(workdir: Workdir) -> dict[str, Any]:
    """Return what the templates show of the model of a run; what the run has not written yet is empty.

    Raises:
      DataError: a file of the workdir does not have the format that this library writes.
    """
    config = to_dict(workdir.read_config()) if workdir.config.exists() else {}
    environment = workdir.read_environment() if workdir.environment.exists() else {}
    stages = config.get("stages", [])
    names = unique_names([stage["name"] for stage in stages])
    cached = {name for name, stage in zip(names, stages, strict=True) if stage.get("cached_views")}
    return {
        "is_file": False,
        "name": workdir.path.resolve().name,
        "variant": environment.get("model", {}).get("variant") or config.get("model", {}).get("variant"),
        "class_names": environment.get("data", {}).get("class_names") or config.get("data", {}).get("class_names", ()),
        "config": config,
        "stage_names": names,
        "environment": environment,
        "by": (workdir.read_splits_record().get("by") or {}) if workdir.splits.exists() else {},
        "log": _log_summary(workdir.read_metrics(), cached),
        "training_images": _base64_if_present(workdir.preview),
    }


def file_view(path: Path) -> dict[str, Any]:
    """Return what the templates show of a model that came as a file, which keeps nothing of its data and training.

    Raises:
      DataError: the file is no model of a run.
    """
    record, info = read_model_info(path)
    config = to_dict(record.config)
    return {
        "is_file": True,
        "name": None,
        "variant": record.config.model.variant,
        "class_names": record.config.data.class_names,
        "config": {name: config[name] for name in ("data", "model")},
        "environment": {"weights": info_to_dict(info)} if info and info.licence else {},
        "by": {},
        "log": None,
        "training_images": None,
    }


def loss_figure(records: Sequence[Mapping]) -> Markup | None:
    """Return the losses of a run over its steps, from the lines of its log; None if it has none."""
    figure = _figure(records, "Loss", ("train/loss", "val/loss"), log=True)
    return None if figure is None else figure["svg"]


def _figure(records: Sequence[Mapping], title: str, fields: Sequence[str], *, log: bool) -> dict[str, Any] | None:
    series = {field.split("/")[0]: _column(records, field) for field in fields}
    series = {name: column for name, column in series.items() if column[0]}
    if not series:
        return None
    boundaries = [record["step"] for record in _stage_starts(records)]
    return {
        "title": title,
        "svg": Markup(plots.curves(series, boundaries=boundaries, log=log)),
        "names": list(series),
    }


def _stage_starts(records: Sequence[Mapping]) -> list[Mapping]:
    return [after for before, after in pairwise(records) if before.get("stage") != after.get("stage")]


def _log_summary(records: Sequence[Mapping], cached: set[str]) -> dict | None:
    """Return what the log of a run shows; `cached` are the names of its stages on cached features."""
    if not records:
        return None
    panels = (
        ("Loss", ("train/loss", "val/loss"), True),
        ("Accuracy", ("train/accuracy", "val/accuracy"), False),
        ("Learning rate", ("lr",), True),
        ("Gradient norm", ("norm/gradient",), True),
    )
    figures = [_figure(records, title, fields, log=log) for title, fields, log in panels]
    # No image goes through the network in a stage on cached features, so its speed is another quantity.
    _, speed = _column([record for record in records if record.get("stage") not in cached], "perf/images_per_second")
    return {
        "last": records[-1],
        "stage_starts": _stage_starts(records),
        "figures": [figure for figure in figures if figure],
        "thinned": len(records) > plots.MAX_POINTS,
        "images_per_second": float(np.median(speed)) if speed else None,
    }


def _column(records: Sequence[Mapping], field: str) -> tuple[list, list]:
    points = [(record["step"], record[field]) for record in records if record.get(field) is not None]
    return [step for step, _ in points], [value for _, value in points]


def _base64_if_present(path: Path) -> str | None:
    if not path.exists():
        return None
    check_regular_file(path)
    return base64.b64encode(path.read_bytes()).decode()
