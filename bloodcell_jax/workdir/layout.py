"""The folder of a run: the name of every file in it, who may write to it, and what belongs to the run."""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.config import Config, from_dict
from bloodcell_jax.errors import DataError, MachineError, UsageError
from bloodcell_jax.weights.info import MODEL_NAME
from bloodcell_jax.workdir.json_files import read_json
from bloodcell_jax.workdir.records import check_environment, check_metrics_line, check_splits, read_lines

# What a run writes into its lock: its folder is known as its own by this.
_MARK = "a run of bloodcell_jax\n"
# The end of the names of a run's TensorBoard files, by which they are told from those of other programs.
EVENTS_END = ".bloodcell"
# Ends of the names of splits below eval/: images that were augmented, answers by test-time augmentation, and those of
# the checkpoint of a step that is not the run's model.
AUGMENTED, TTA, STEP = "_aug", "_tta", "_step"
# What `evaluate --suite` can score; evaluate/robustness/suites.py says what they are.
SUITE_NAMES = ("blood96-c", "imagenet-c", "chains")
_MEDMNIST = re.compile(r".+_(train|val|test)_\[AUC\][01]\.\d{3}_\[ACC\][01]\.\d{3}@.+\.csv")


class EvaluationFolder:
    """The files of one evaluated split."""

    def __init__(self, path: Path):
        self.path = path
        self.metrics = path / "metrics.json"
        self.predictions = path / "predictions.csv"
        self.most_wrong = path / "most_wrong.json"
        self.groups = path / "groups.csv"
        self.example_groups = path / "example_groups.csv"
        self.page = path / "index.html"
        self.explained_cells = path / "explained_cells.json"
        self.embedding_map = path / "embedding_map.json"
        self.before = path / "before.json"  # metrics of the model that the run started from

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        of_groups = (self.groups, self.example_groups)
        named = (self.metrics, self.predictions, self.most_wrong, *of_groups, self.page, self.before)
        return (*named, *self.explanations, *map(self.suite, SUITE_NAMES), *self.medmnist_results())

    def suite(self, name: str) -> Path:
        """Return the file of the scores under a suite of corruptions."""
        return self.path / f"{name}.json"

    def suites(self) -> dict[str, Path]:
        """Return the files of the suites that have been scored, by name."""
        return {name: self.suite(name) for name in SUITE_NAMES if self.suite(name).exists()}

    @property
    def explanations(self) -> tuple[Path, ...]:
        """What only evaluations with the network at hand leave."""
        return self.explained_cells, self.embedding_map

    def medmnist_results(self) -> list[Path]:
        """Return the files whose names hold their scores, as MedMNIST's evaluator names them."""
        return [path for path in sorted(self.path.glob("*.csv")) if _MEDMNIST.fullmatch(path.name)]


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
        self.events = self.path / "events"  # TensorBoard's own names, which end with EVENTS_END
        self.tracking = self.path / "tracking.json"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / MODEL_NAME
        self.report = self.path / "report" / "index.html"
        self.preview = self.path / "report" / "training_pictures.png"
        self.find_lr, self.find_lr_page = self.path / "find_lr.json", self.path / "find_lr.html"
        self.profile = self.path / "profile"
        self.eval = self.path / "eval"
        self._lock = self.path / ".lock"

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that stand by themselves; evaluations, checkpoints, events and profiles are folders of files."""
        data = (self.config, self.environment, self.splits, self.metrics, self.bad_steps, self.bad_batch, self.model)
        return (*data, self.tracking, self.report, self.preview, self.find_lr, self.find_lr_page)

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
            lock = os.fdopen(os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+")
        except OSError as error:
            raise MachineError(f"--workdir={self}: cannot be written to ({error.strerror})") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise MachineError(f"--workdir={self}: in use by another run; wait for it or choose another") from error
            lock.write(_MARK)
            lock.truncate()
            lock.flush()
            os.fsync(lock.fileno())
            yield

    def is_marked(self) -> bool:
        """Return whether a run of this library has been here."""
        with contextlib.suppress(OSError, ValueError):
            return self._lock.is_file() and self._lock.read_text(encoding="utf-8") == _MARK
        return False

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

    def read_environment(self) -> dict[str, Any]:
        """Return what `environment.json` says of the data, the machine and the network.

        Raises:
          DataError: there is none, or it is another file.
        """
        return check_environment(read_json(self.environment), self.environment)

    def read_splits_record(self) -> dict[str, Any]:
        """Return the content of `splits.json`.

        Raises:
          DataError: there is none, or it is another file.
        """
        return check_splits(read_json(self.splits), self.splits)

    def read_splits(self) -> dict[str, np.ndarray]:
        """Return the example indices of each split of the run, int32.

        Raises:
          DataError: there are none.
        """
        splits = self.read_splits_record()["splits"]
        return {name: np.array(indices, np.int32) for name, indices in splits.items()}

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the lines of `metrics.jsonl`, in order; a last line that is still being written is left out.

        Raises:
          DataError: another line is not JSON, or not the values of a step.
        """
        return read_lines(self.metrics, check_metrics_line)
