"""What was understood of the data, in a few lines: a person sees a wrong reading before the first step."""

from collections.abc import Mapping

import numpy as np

from bloodcell_jax.data.audit.geometry import warnings_of
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.geometry import describe
from bloodcell_jax.data.grouping import count_groups
from bloodcell_jax.report.text_table import aligned
from bloodcell_jax.run.run import Run


def data_summary(dataset: Dataset, splits: Mapping[str, np.ndarray]) -> str:
    """Return the images, the classes and groups with their counts per split, what geometry does, and what was left out.

    Warnings follow if a group is in several splits, or if the sizes of the images suggest another geometry.

    Args:
      splits: example indices by split; empty: the dataset is not split.
    """
    splits = splits or {"all": np.arange(len(dataset))}
    counts = [dataset.class_counts(indices) for indices in splits.values()]
    rows = [("class", *splits)]
    rows += [(name, *(f"{count[i]:,}" for count in counts)) for i, name in enumerate(dataset.class_names)]
    rows.append(("all", *(f"{len(indices):,}" for indices in splits.values())))
    groups, warnings = count_groups(dataset, splits), warnings_of(dataset)
    if groups is not None:
        rows.append(("groups", *(f"{count:,}" for count in groups.per_split.values())))
    classes = f"{len(dataset.class_names)} class{'es'[: 2 * (len(dataset.class_names) != 1)]}"
    lines = [f"{dataset.source}: {len(dataset):,} images, {classes}", aligned(rows)]
    if groups is not None:
        lines.append(str(groups))
        warnings = [groups.warning] * bool(groups.warning) + warnings
    lines.append(_geometry(dataset))
    left_out = dict(dataset.left_out)
    if dataset.skipped:
        left_out["not readable"] = len(dataset.skipped)
    if left_out:
        lines.append("left out: " + "; ".join(f"{count:,} {reason}" for reason, count in left_out.items()))
    lines += [f"warning: {warning}" for warning in warnings]
    return "\n".join(lines)


def unused_labels(run: Run) -> str:
    """Return a line on the training examples that the sampler never shows; empty if it shows all."""
    names, members = run.dataset.class_names, run.sampler.members
    seen, there = sum(map(len, members)), len(run.splits["train"])
    if seen == there:
        return ""
    counts = ", ".join(f"{name} {len(own)}" for name, own in zip(names, members, strict=True))
    return f"training sees {seen:,} of {there:,} labels ({counts}); the other {there - seen:,} are unused"


def _geometry(dataset: Dataset) -> str:
    """Say what becomes of the images' sizes."""
    height, width = dataset.images.shape[1:3]
    if dataset.original_sizes is None or dataset.sides is None or dataset.file_geometry is None:
        return f"images of {width}x{height} pixels"
    return describe(dataset.original_sizes, dataset.sides, dataset.file_geometry, width)
