"""Several models that answer as one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.given_images import GivenImage
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import read_json


class Ensemble:
    """The mean of the probabilities of several classifiers (L. K. Hansen and P. Salamon, IEEE PAMI 12, 1990).

    Attributes:
      members: the classifiers.
      class_names: in the order of the probabilities' columns.
    """

    def __init__(self, members: Sequence[Classifier]):
        """Join classifiers.

        Raises:
          UsageError: there are none, or their classes differ.
        """
        lists = {member.class_names for member in members}
        if len(lists) != 1:
            given = " and ".join(", ".join(names) for names in sorted(lists)) or "no classifier"
            raise UsageError(f"an ensemble of {given}; give one or more classifiers of the same classes")
        self.members, self.class_names = tuple(members), members[0].class_names

    @classmethod
    def from_crossval(cls, workdir: str | Path) -> "Ensemble":
        """Load the model of each run of a finished cross-validation.

        Args:
          workdir: that of `crossval`.

        Raises:
          DataError: it holds none, or a model of it cannot be read.
        """
        path = Path(workdir) / "crossval.json"
        try:
            folders = [Path(workdir) / run["path"] for run in read_json(path)["runs"]]
        except (TypeError, KeyError) as error:
            raise DataError(f"{path}: names no runs; run crossval again") from error
        return cls([Classifier.from_file(Workdir(folder).model) for folder in folders])

    def predict(self, images: np.ndarray | Sequence[GivenImage], *, cropped: bool = False) -> np.ndarray:
        """Return the probabilities [n, classes] of images; arguments and errors are those of `Classifier.predict`."""
        return np.mean([member.predict(images, cropped=cropped) for member in self.members], axis=0)
