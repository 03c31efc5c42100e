"""The skipped steps of a run on disk: `bad_steps.jsonl`, one object per step, and the batch at which it diverged."""

import json
import os
from typing import IO, Any

import numpy as np

from bloodcell_jax.whole_files import replacing, writing
from bloodcell_jax.workdir.layout import Workdir
from bloodcell_jax.workdir.records import check_bad_step, read_lines


class BadStepsLog:
    """Appends to `bad_steps.jsonl`; a run that skips nothing has none.

    Like `metrics.jsonl`, it is durable up to a checkpoint before that is saved, and cut there when a run is resumed.
    Every method raises MachineError if the machine refuses.
    """

    def __init__(self, workdir: Workdir, *, first_step: int):
        self._path, self._file = workdir.bad_steps, None
        if self._path.exists():
            kept = [line for line in read_lines(self._path, check_bad_step) if line["step"] <= first_step]
            with replacing(self._path) as temporary:
                temporary.write_text("".join(map(_as_line, kept)), encoding="utf-8")
            if not kept:
                self._path.unlink()

    def write(self, step: dict[str, Any]) -> None:
        """Append one skipped step: `step`, `reason`, `loss` (None if it is not finite) and `ids`."""
        with writing(self._path):
            self._open().write(_as_line(step))
            self._open().flush()

    def sync(self) -> None:
        """Make everything that was written survive a crash of the machine."""
        if self._file is not None:
            with writing(self._path):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with writing(self._path):
                self._file.close()

    def _open(self) -> IO[str]:
        if self._file is None:
            self._file = self._path.open("a", encoding="utf-8")
        return self._file


def _as_line(step: dict[str, Any]) -> str:
    return json.dumps(step, allow_nan=False) + "\n"


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
