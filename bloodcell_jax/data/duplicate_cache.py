"""Groups of duplicates, kept between launches: finding them takes longer than reading the data."""

import contextlib
import hashlib
import os
from pathlib import Path

import numpy as np

from bloodcell_jax.data import duplicates
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.download import cache_folder


def cached_duplicate_groups(dataset: Dataset, data_hash: str) -> np.ndarray:
    """Return `duplicate_groups` of a dataset, int32 [n], from the user's cache where it is known.

    What is known holds for these very data (`data_hash`) and this version of the search.
    """
    version = hashlib.sha256(Path(duplicates.__file__).read_bytes()).hexdigest()
    path = cache_folder("data") / "duplicates" / f"{data_hash[:32]}-{version[:8]}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        groups = np.load(path, allow_pickle=False)
        if groups.shape == (len(dataset),):
            return groups
    groups = duplicates.duplicate_groups(dataset.images)
    # A cache that cannot be written costs time alone.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.npy")
        np.save(temporary, groups)
        temporary.replace(path)
    return groups
