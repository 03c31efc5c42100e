"""The folder of a run: the name of every file in it, who may write to it, and what belongs to the run."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.config import Config, from_dict
from bloodcell_jax.errors import DataError, MachineError, UsageError
from bloodcell_jax.workdir.files import read_json, temporaries_of


class EvaluationFolder:
    """The files of one evaluated split."""

    def __init__(self, path: Path):
        self.path = path
        self.metrics = path / "metrics.json"
        self.predictions = path / "predictions.csv"
        self.most_wrong = path / "most_wrong.json"

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return self.metrics, self.predictions, self.most_wrong


class Workdir:
    """The folder of one run. It may not exist yet.

    A file that is not named here is not the run's: `delete_run` leaves it alone.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.environment = self.path / "environment.json"
        self.splits = self.path / "splits.json"
        self.metrics = self.path / "metrics.jsonl"
        self.events = self.path / "events"  # TensorBoard appends what it wants to this name
        self.checkpoints = self.path / "checkpoints"
        self.report = self.path / "report" / "index.html"
        self.preview = self.path / "report" / "training_pictures.png"
        self.profile = self.path / "profile"
        self._evaluations = self.path / "eval"
        self._lock = self.path / ".lock"

    def __str__(self) -> str:
        return str(self.path)

    def evaluation(self, split: str) -> EvaluationFolder:
        """Return the files of an evaluated split."""
        return EvaluationFolder(self._evaluations / split)

    def evaluations(self) -> dict[str, EvaluationFolder]:
        """Return the files of each split that has been evaluated, by split."""
        folders = (EvaluationFolder(path.parent) for path in sorted(self._evaluations.glob("*/metrics.json")))
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

    def delete_run(self) -> None:
        """Delete what a run wrote, and nothing that others put into the workdir."""
        for path in self._own_files():
            path.unlink(missing_ok=True)
        for path in self.checkpoints.glob("[0-9]*/"):
            shutil.rmtree(path)
        for folder in self._own_folders():
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _own_files(self) -> Iterator[Path]:
        written_whole = [self.config, self.environment, self.splits, self.metrics, self.report, self.preview]
        for folder in self._evaluations.glob("*"):
            written_whole += EvaluationFolder(folder).files
        for path in written_whole:
            yield path
            yield from temporaries_of(path)
        yield from self.path.glob(f"{self.events.name}.out.tfevents.*")
        for suffix in ("*.xplane.pb", "*.trace.json.gz"):
            yield from self.profile.glob(f"plugins/profile/*/{suffix}")

    def _own_folders(self) -> Iterator[Path]:
        """Yield the folders that a run makes, those inside others first."""
        yield from self.profile.glob("plugins/profile/*")
        yield from (self.profile / "plugins" / "profile", self.profile / "plugins", self.profile)
        yield from self._evaluations.glob("*")
        yield from (self._evaluations, self.checkpoints, self.report.parent)

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
