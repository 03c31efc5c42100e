"""The batch at which a run diverged, on disk."""

from typing import Any

import numpy as np

from bloodcell_jax.whole_files import replacing
from bloodcell_jax.workdir.layout import Workdir


def write_bad_batch(
    workdir: Workdir, *, step: int, images: np.ndarray, labels: np.ndarray, ids: list[str], class_names: tuple[str, ...]
) -> None:
    """Write the batch of a step as `bad_batch.npz`: its arrays `images`, `labels`, `ids`, `class_names` and `step`.

    Args:
      step: the step that trained on it, counted from 1.
      images: as the source stores them, uint8 [n, h, w, 3].
      labels: int32 [n].
      ids: of the examples, [n].
      class_names: in the order of the labels.

    Raises:
      MachineError: it cannot be written.
    """
    names = {"ids": np.array(ids, str), "class_names": np.array(class_names, str)}
    arrays: dict[str, Any] = {"images": images, "labels": labels, **names, "step": np.int64(step)}
    with replacing(workdir.bad_batch) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
