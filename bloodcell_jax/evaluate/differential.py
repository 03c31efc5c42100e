"""The differential count of predicted cells: how many of each class, in all and in each folder."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class Differential:
    """Counts images by predicted class.

    Attributes:
      class_names: the model's.
      folders: the count of each class, int [k], by folder, in the order in which folders occur.
      unknown: how many images of a folder, by folder, are not of a kind that the model knows. They are counted as
        their likeliest class as well: what is left out of a count is missed in silence, and of another stain or
        microscope a model may know no cell at all.
    """

    def __init__(self, class_names: Sequence[str]):
        self.class_names = tuple(class_names)
        self.folders: dict[str, np.ndarray] = {}
        self.unknown: dict[str, int] = {}

    def add(self, folder: str, label: int, *, known: bool) -> None:
        """Count an image of a folder."""
        counts = self.folders.setdefault(folder, np.zeros(len(self.class_names), int))
        counts[label] += 1
        self.unknown[folder] = self.unknown.get(folder, 0) + (not known)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as values for JSON: of each class in all and by folder, and the unknown images likewise."""

        def named(counts: np.ndarray) -> dict[str, int]:
            return dict(zip(self.class_names, counts.tolist(), strict=True))

        folders = {
            folder: {"counts": named(counts), "unknown": self.unknown[folder]}
            for folder, counts in self.folders.items()
        }
        return {"counts": named(self.total), "unknown": sum(self.unknown.values()), "folders": folders}

    @property
    def total(self) -> np.ndarray:
        """The count of each class over all folders, int [k]."""
        return sum(self.folders.values(), np.zeros(len(self.class_names), int))
