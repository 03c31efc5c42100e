"""The folder of a run: the name of every file in it, who may write to it, and what belongs to the run."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.config import Config, from_dict
from bloodcell_jax.errors import DataError, MachineError, UsageError
from bloodcell_jax.weights.info import MODEL_NAME
from bloodcell_jax.workdir.files import read_json


class EvaluationFolder:
    """The files of one evaluated split."""

    def __init__(self, path: Path):
        self.path = path
        self.metrics = path / "metrics.json"
        self.predictions = path / "predictions.csv"
        self.most_wrong = path / "most_wrong.json"
        self.groups = path / "groups.csv"
        self.page = path / "index.html"
        self.before = path / "before.json"  # metrics of the model that the run started from

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return self.metrics, self.predictions, self.most_wrong, self.groups, self.page, self.before


class Workdir:
    """The folder of one run. It may not exist yet.

    A file that is not named here is not the run's: `--overwrite` leaves it alone.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.environment = self.path / "environment.json"
        self.splits = self.path / "splits.json"
        self.metrics = self.path / "metrics.jsonl"
        self.bad_steps, self.bad_batch = self.path / "bad_steps.jsonl", self.path / "bad_batch.npz"
        self.events = self.path / "events"  # TensorBoard appends what it wants to this name
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / MODEL_NAME
        self.report = self.path / "report" / "index.html"
        self.preview = self.path / "report" / "training_pictures.png"
        self.profile = self.path / "profile"
        self.eval = self.path / "eval"
        self._lock = self.path / ".lock"

    def __str__(self) -> str:
        return str(self.path)

    def evaluation(self, split: str) -> EvaluationFolder:
        """Return the files of an evaluated split."""
        return EvaluationFolder(self.eval / split)

    def evaluations(self) -> dict[str, EvaluationFolder]:
        """Return the files of each split that has been evaluated, by split."""
        folders = (EvaluationFolder(path.parent) for path in sorted(self.eval.glob("*/metrics.json")))
        return {folder.path.name: folder for folder in folders}

    def check_usable(self) -> None:
        """Check that the workdir can be written to, without creating it.

        Raises:
          UsageError: it is a file, or lies below one.
          MachineError: it may not be written to.
        """
        place = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if not place.is_dir():
            raise UsageError(f"--workdir={self}: {place} is a file; name a folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise MachineError(f"--workdir={self}: {place} is not writable; choose another folder or its permissions")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the workdir and hold it for this process alone.

        Raises:
          MachineError: another run holds it, or it cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = self._lock.open("w")
        except OSError as error:
            raise MachineError(f"--workdir={self}: cannot be written to ({error.strerror})") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise MachineError(f"--workdir={self}: in use by another run; wait for it or choose another") from error
            yield

    def read_config(self) -> Config:
        """Return the resolved configuration of the run.

        Raises:
          DataError: there is none, or it is not a configuration of this version.
        """
        values = read_json(self.config)
        try:
            return from_dict(values)
        except UsageError as error:
            raise DataError(f"{self.config}: {error}") from error

    def read_splits(self) -> dict[str, np.ndarray]:
        """Return the example indices of each split of the run, int32.

        Raises:
          DataError: there are none.
        """
        splits = read_json(self.splits)["splits"]
        return {name: np.array(indices, np.int32) for name, indices in splits.items()}

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the lines of `metrics.jsonl`, in order; a last line that is still being written is left out.

        Raises:
          DataError: another line is not JSON.
        """
        if not self.metrics.exists():
            return []
        *lines, _unfinished = self.metrics.read_text(encoding="utf-8", errors="replace").split("\n")
        records = []
        for number, line in enumerate(lines, 1):
            try:
                records.append(json.loads(line))
            except ValueError as error:
                raise DataError(f"{self.metrics}, line {number}: not JSON ({error}); delete that line") from error
        return records
