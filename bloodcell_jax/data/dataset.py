"""The one form that every source takes: labeled images with class names and ids."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import compress

import numpy as np

from bloodcell_jax.data.geometry import FileGeometry, View, view_of
from bloodcell_jax.data.stored_images import StoredImages
from bloodcell_jax.errors import DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Dataset:
    """Labeled images.

    Attributes:
      images: uint8 [n, h, w, 3] with h = w: an array in memory, or images on the disk that are read by index.
      labels: int32 [n], indices into class_names.
      class_names: one per label.
      ids: one text per example: the path inside the source, or the index if the source holds arrays. Any sequence:
        millions of ids are kept as one packed text (`bloodcell_jax.data.example_index.Names`), not as strings.
      source: the source as the user named it.
      splits: the source's own splits, name -> int32 example indices; empty if it has none.
      skipped: images that could not be read and are left out, name -> reason.
      original_sizes: (width, height) of each image file before it was cropped and resized, int32 [n, 2]; None for
        arrays.
      sides: side of the centered square of each file that is looked at, in pixels of the file, int32 [n]; None for
        arrays.
      file_geometry: what is looked at of image files, or was when they were prepared; None: not known, or arrays.
      left_out: how many files were not read, by reason.
      groups: the group of each example, such as its patient or slide; None if the source says none.
      columns: what else the source says of each example, by name: values to slice an evaluation by.
      known_sha256: the hash, if it is known without reading every image.
    """

    images: np.ndarray | StoredImages
    labels: np.ndarray
    class_names: tuple[str, ...]
    ids: Sequence[str]
    source: str
    splits: dict[str, np.ndarray] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    original_sizes: np.ndarray | None = None
    sides: np.ndarray | None = None
    file_geometry: FileGeometry | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    groups: tuple[str, ...] | None = None
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    known_sha256: str | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def view(self) -> View | None:
        """What is looked at of image files; None: the source holds arrays of unknown origin."""
        return self.file_geometry.view if self.file_geometry else None

    def image_array(self) -> np.ndarray:
        """Return all images as one array in memory, uint8 [n, h, w, 3].

        Raises:
          DataError: an image cannot be read.
          MachineError: the images do not fit into memory.
        """
        return self.images if isinstance(self.images, np.ndarray) else self.images.in_memory()

    def in_memory(self) -> "Dataset":
        """Return the same dataset with its images in memory; its hash is then computed from them."""
        if isinstance(self.images, np.ndarray):
            return self
        return replace(self, images=self.image_array(), ids=tuple(self.ids), known_sha256=None)

    def select(self, kept: np.ndarray) -> "Dataset":
        """Return the examples of a mask, bool [n]; their ids, order and classes stay."""
        place, file_geometry = np.cumsum(kept) - 1, self.file_geometry
        if file_geometry is not None and self.original_sizes is not None and self.sides is not None and kept.any():
            file_geometry = file_geometry._replace(view=view_of(self.original_sizes[kept], self.sides[kept]))
        splits = {name: place[indices[kept[indices]]].astype(np.int32) for name, indices in self.splits.items()}
        return replace(
            self,
            images=self.images[kept] if isinstance(self.images, np.ndarray) else self.images.select(kept),
            labels=self.labels[kept],
            ids=_kept(self.ids, kept),
            splits={name: indices for name, indices in splits.items() if len(indices)},
            original_sizes=None if self.original_sizes is None else self.original_sizes[kept],
            sides=None if self.sides is None else self.sides[kept],
            file_geometry=file_geometry,
            groups=None if self.groups is None else _kept(self.groups, kept),
            columns={name: _kept(values, kept) for name, values in self.columns.items()},
            known_sha256=None,
        )

    def groups_of(self, indices: np.ndarray) -> list[str] | None:
        """Return the groups of some examples; None if the source says none."""
        return None if self.groups is None else [self.groups[int(i)] for i in indices]

    def class_counts(self, indices: np.ndarray | None = None) -> np.ndarray:
        """Return how many examples each class has, [classes], among `indices` or all."""
        labels = self.labels if indices is None else self.labels[indices]
        return np.bincount(labels, minlength=len(self.class_names))

    def sha256(self) -> str:
        """Return the hash over (id, label, pixels) in order; sources with the same hash hold the same data."""
        if self.known_sha256 is not None:
            return self.known_sha256
        digest = hashlib.sha256()
        for name, label, image in zip(self.ids, self.labels, self.images, strict=True):
            digest.update(f"{name}\0{label}\0{'x'.join(map(str, image.shape))}\0".encode())
            digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()


def _kept(values: Sequence[str], kept: np.ndarray) -> tuple[str, ...]:
    return tuple(compress(values, kept))


def index_ids(count: int) -> tuple[str, ...]:
    """Return the numbers from 0 as text: the ids of examples, or the names of classes, that have no others."""
    return tuple(map(str, range(count)))


def check_learnable(dataset: Dataset) -> None:
    """Check that there are at least two classes and that none is empty.

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
