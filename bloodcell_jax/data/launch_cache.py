"""Facts about data that take longer to find than the data take to read, kept in the user's cache between launches."""

import contextlib
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from bloodcell_jax.data import duplicates
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.download import cache_folder
from bloodcell_jax.errors import MachineError
from bloodcell_jax.whole_files import replacing

logger = logging.getLogger(__name__)


def cached_duplicate_groups(dataset: Dataset, data_hash: str) -> np.ndarray:
    """Return `duplicate_groups` of a dataset, int32 [n], from the user's cache if they are known.

    The groups are known only for the same data (`data_hash`) and the same version of the search.
    """
    groups = known_duplicate_groups(dataset, data_hash)
    if groups is not None:
        return groups
    found = duplicates.duplicate_groups(dataset.image_array())
    _keep(_duplicates_path(data_hash), lambda file: np.save(file, found))
    return found


def known_duplicate_groups(dataset: Dataset, data_hash: str) -> np.ndarray | None:
    """Return what `cached_duplicate_groups` returns without a search; None if it would have to search."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        groups = np.load(_duplicates_path(data_hash), allow_pickle=False)
        if groups.shape == (len(dataset),):
            return groups
    return None


def cached_sha256(dataset: Dataset) -> str:
    """Return `dataset.sha256()`; for images on the disk, from the user's cache if these files were hashed before."""
    if isinstance(dataset.images, np.ndarray) or dataset.known_sha256 is not None:
        return dataset.sha256()
    # The same files may be read under another order of the classes, or other ids.
    named = hashlib.sha256(dataset.images.key.encode() + dataset.labels.tobytes() + "\0".join(dataset.ids).encode())
    path = cache_folder("data") / "hashes" / f"{named.hexdigest()[:32]}.txt"
    with contextlib.suppress(OSError, ValueError):
        known = path.read_text(encoding="ascii")
        if len(known) == 64:
            return known
    logger.info("%s: hashing %s images, once", dataset.source, f"{len(dataset):,}")
    data_hash = dataset.sha256()
    _keep(path, lambda file: file.write(data_hash.encode("ascii")))
    return data_hash


def _duplicates_path(data_hash: str) -> Path:
    version = hashlib.sha256(Path(duplicates.__file__).read_bytes()).hexdigest()
    return cache_folder("data") / "duplicates" / f"{data_hash[:32]}-{version[:8]}.npy"


def _keep(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file of the cache; a file that cannot be written costs only time."""
    with contextlib.suppress(MachineError), replacing(path) as temporary, temporary.open("wb") as file:
        write(file)
