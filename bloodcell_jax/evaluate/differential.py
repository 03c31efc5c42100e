"""The differential count of predicted cells: how many of each class, in all and in each folder."""

from collections.abc import Sequence

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

    @property
    def total(self) -> np.ndarray:
        """The count of each class over all folders, int [k]."""
        return sum(self.folders.values(), np.zeros(len(self.class_names), int))
