"""What was understood of the data, in a few lines: a person sees a wrong reading before the first step."""

from collections.abc import Mapping

import numpy as np

from bloodcell_jax.data.audit.geometry import warnings_of
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.report.text_table import aligned

# So many sizes of files are named; the others are counted.
_SIZES = 3


def data_summary(dataset: Dataset, splits: Mapping[str, np.ndarray], *, crop: int | None) -> str:
    """Return the images, the classes with their counts per split, what geometry does, and what was left out.

    Warnings follow if the sizes of the images suggest another geometry.

    Args:
      splits: example indices by split; empty: the dataset is not split.
      crop: with which image files were read.
    """
    splits = splits or {"all": np.arange(len(dataset))}
    counts = [dataset.class_counts(indices) for indices in splits.values()]
    rows = [("class", *splits)]
    rows += [(name, *(f"{count[i]:,}" for count in counts)) for i, name in enumerate(dataset.class_names)]
    rows.append(("all", *(f"{len(indices):,}" for indices in splits.values())))
    classes = f"{len(dataset.class_names)} class{'es'[: 2 * (len(dataset.class_names) != 1)]}"
    lines = [f"{dataset.source}: {len(dataset):,} images, {classes}", aligned(rows), _geometry(dataset, crop)]
    left_out = dict(dataset.left_out)
    if dataset.skipped:
        left_out["not readable"] = len(dataset.skipped)
    if left_out:
        lines.append("left out: " + "; ".join(f"{count:,} {reason}" for reason, count in left_out.items()))
    lines += [f"warning: {warning}" for warning in warnings_of(dataset, crop)]
    return "\n".join(lines)


def _geometry(dataset: Dataset, crop: int | None) -> str:
    """Say what becomes of the images' sizes."""
    height, width = dataset.images.shape[1:3]
    if dataset.original_sizes is None:
        return f"images of {width}x{height} pixels"
    sizes, counts = np.unique(dataset.original_sizes, axis=0, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:_SIZES]
    named = ", ".join(f"{sizes[i][0]}x{sizes[i][1]} ({counts[i]:,})" for i in largest)
    more = f" and {len(sizes) - _SIZES} more sizes" if len(sizes) > _SIZES else ""
    short, long = dataset.original_sizes.min(axis=1), dataset.original_sizes.max(axis=1)
    cropped = short > crop if crop is not None else np.zeros(len(short), bool)
    squared = (short < long) & ~cropped
    steps = [f"{cropped.sum():,} center-cropped to {crop}x{crop}"] * bool(cropped.any())
    steps += [f"{squared.sum():,} cropped to their centered square"] * bool(squared.any())
    return f"files of {named}{more} pixels: {'; '.join([*steps, f'all resized to {width}x{height}'])}"
