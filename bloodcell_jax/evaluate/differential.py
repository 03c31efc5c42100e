"""The differential count of predicted cells: how many of each class, in all and in each folder."""

from collections.abc import Sequence

import numpy as np


class Differential:
    """Counts images by predicted class.

    Attributes:
      class_names: the model's.
      folders: the count of each class, int [k], by folder, in the order in which folders occur.
    """

    def __init__(self, class_names: Sequence[str]):
        self.class_names = tuple(class_names)
        self.folders: dict[str, np.ndarray] = {}

    def add(self, folder: str, label: int) -> None:
        """Count an image of a folder."""
        counts = self.folders.setdefault(folder, np.zeros(len(self.class_names), int))
        counts[label] += 1

    @property
    def total(self) -> np.ndarray:
        """The count of each class over all folders, int [k]."""
        return sum(self.folders.values(), np.zeros(len(self.class_names), int))
