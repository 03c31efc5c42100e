"""Which examples are for training, for choosing (val) and for the final word (test)."""

import numpy as np

from bloodcell_jax.data.dataset import SPLITS, Dataset
from bloodcell_jax.errors import DataError

# Keeps the split's draws apart from every other use of the seed.
_SPLIT_STREAM = 0x5E11


def split_dataset(dataset: Dataset, fractions: tuple[float, float, float], *, seed: int) -> dict[str, np.ndarray]:
    """Return ascending example indices of train, val and, where there is one, test.

    Splits that the source names are kept. A missing val is cut from its train in the proportion of the train and
    val `fractions`; a missing test is not invented there. A source that names no splits is cut by all three
    fractions. Cuts are stratified by class and depend on (labels, fractions, seed) alone.

    Raises:
      DataError: a class with too few examples to be cut, or without any in train.
    """
    splits = {name: np.sort(indices) for name, indices in dataset.splits.items()}
    if not splits:
        parts = _stratified_cut(dataset, np.arange(len(dataset)), fractions, seed)
        splits = dict(zip(SPLITS, parts, strict=True))
    elif "val" not in splits:
        train_and_val = np.array(fractions[:2]) / sum(fractions[:2])
        splits["train"], splits["val"] = _stratified_cut(dataset, splits["train"], train_and_val, seed)
    for name, count in zip(dataset.class_names, dataset.class_counts(splits["train"]), strict=True):
        if count == 0:
            raise DataError(f"{dataset.source}: class {name} has no picture in train")
    return {name: splits[name].astype(np.int32) for name in SPLITS if len(splits.get(name, ()))}


def _stratified_cut(dataset: Dataset, indices: np.ndarray, fractions, seed: int) -> list[np.ndarray]:
    """Cut `indices` into parts of the given fractions, each class alike, every non-empty part with every class."""
    generator = np.random.Generator(np.random.Philox(key=[seed, _SPLIT_STREAM]))
    fractions = np.asarray(fractions)
    parts = [[] for _ in fractions]
    for label, name in enumerate(dataset.class_names):
        members = generator.permutation(indices[dataset.labels[indices] == label])
        if len(members) < 3:
            raise DataError(
                f"{dataset.source}: class {name} has {len(members)} pictures; a split needs at least 3 of each class"
            )
        for part, chosen in zip(parts, np.split(members, _cut_points(len(members), fractions)), strict=True):
            part.append(chosen)
    return [np.sort(np.concatenate(part)) for part in parts]


def _cut_points(count: int, fractions: np.ndarray) -> np.ndarray:
    """Return where to cut `count` examples so that each part whose fraction is above 0 gets at least one."""
    sizes = np.floor(fractions * count).astype(int)
    sizes[(fractions > 0) & (sizes == 0)] = 1
    sizes[0] = count - sizes[1:].sum()
    return np.cumsum(sizes)[:-1]
