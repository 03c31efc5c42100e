"""The one form every source takes: images and labels with names and identities."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bloodcell_jax.data.stored_images import StoredImages
from bloodcell_jax.errors import DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Dataset:
    """Labelled images.

    Attributes:
      images: uint8 [n, h, w, 3], h = w, in memory, or on the disk and read by index.
      labels: int32 [n], indices into class_names.
      class_names: one per label.
      ids: one per example: the path inside the source, or the index for arrays.
      source: what it was read from, as given.
      splits: the source's own splits, name -> int32 example indices; empty where it names none.
      skipped: images that could not be read and are left out, name -> reason.
      known_sha256: the hash, where it is known without reading every image.
    """

    images: np.ndarray | StoredImages
    labels: np.ndarray
    class_names: tuple[str, ...]
    ids: Sequence[str]
    source: str
    splits: dict[str, np.ndarray] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    known_sha256: str | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def in_memory(self) -> "Dataset":
        """Return the same with its images in memory, and its hash to be computed from them."""
        if isinstance(self.images, np.ndarray):
            return self
        return replace(self, images=self.images.in_memory(), ids=tuple(self.ids), known_sha256=None)

    def select(self, kept: np.ndarray) -> "Dataset":
        """Return the examples of a mask, bool [n]; their ids, order and classes stay."""
        place = np.cumsum(kept) - 1
        splits = {name: place[indices[kept[indices]]].astype(np.int32) for name, indices in self.splits.items()}
        return replace(
            self,
            images=self.images[kept] if isinstance(self.images, np.ndarray) else self.images.select(kept),
            labels=self.labels[kept],
            ids=tuple(name for name, keep in zip(self.ids, kept, strict=True) if keep),
            splits={name: indices for name, indices in splits.items() if len(indices)},
            known_sha256=None,
        )

    def class_counts(self, indices: np.ndarray | None = None) -> np.ndarray:
        """Return how many examples each class has, [classes], among `indices` or all."""
        labels = self.labels if indices is None else self.labels[indices]
        return np.bincount(labels, minlength=len(self.class_names))

    def sha256(self) -> str:
        """Return the hash over (id, label, pixels) in order, which says whether two sources hold the same data."""
        if self.known_sha256 is not None:
            return self.known_sha256
        digest = hashlib.sha256()
        for name, label, image in zip(self.ids, self.labels, self.images, strict=True):
            digest.update(f"{name}\0{label}\0{'x'.join(map(str, image.shape))}\0".encode())
            digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()


def check_learnable(dataset: Dataset) -> None:
    """Check that there are at least two classes, none of them empty.

    Raises:
      DataError: names the class, or the source.
    """
    counts = dataset.class_counts()
    if len(counts) < 2:
        raise DataError(f"{dataset.source}: only one class ({dataset.class_names[0]}); a classifier needs two or more")
    for name, count in zip(dataset.class_names, counts, strict=True):
        if count == 0:
            raise DataError(
                f"{dataset.source}: class {name} has no image; add some, or leave it out of data.class_names"
            )
