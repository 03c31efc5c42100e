"""The folders of a run's checkpoints: which are whole, which is the best, which may go."""

import contextlib
import logging
import math
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloodcell_jax.errors import DataError
from bloodcell_jax.whole_files import sync
from bloodcell_jax.workdir.checksums import find_damage, has_checksums, write_checksums
from bloodcell_jax.workdir.json_files import read_json

logger = logging.getLogger(__name__)

_CHECKPOINT = re.compile(r"[1-9]\d*")
# A checkpoint gets its own name when it is whole. These are on the way to it, or on the way out.
_UNFINISHED = re.compile(r"[1-9]\d*\.(unfinished(\.orbax-checkpoint-tmp.*)?|deleted)")
_REPLACED = re.compile(r"([1-9]\d*)\.replaced")
_DAMAGED = re.compile(r"[1-9]\d*\.damaged")


@dataclass(frozen=True)
class Ranking:
    """What tells the best checkpoint: a metric of its record, and which way is better."""

    metric: str
    higher_is_better: bool


class CheckpointFolders:
    """The folders `<directory>/<step>/`, each with the files of a checkpoint, its record and their checksums.

    The record holds what no array does, as JSON values: `metrics` (by which the best is known) and others of the run.
    Of several processes the first one alone looks here, and tells the others.
    """

    def __init__(self, directory: Path):
        self.directory = directory.absolute()
        self._damage: dict[int, str | None] = {}

    def create(self) -> None:
        """Create the directory, and tidy up what a killed process left in it."""
        self.directory.mkdir(exist_ok=True)
        for path in self._paths():
            if _UNFINISHED.fullmatch(path.name):
                shutil.rmtree(path)
            elif replaced := _REPLACED.fullmatch(path.name):
                self._put_back(path, self.directory / replaced[1])

    def of_step(self, step: int) -> Path:
        """Return the folder of a checkpoint."""
        return self.directory / str(step)

    def unfinished(self, step: int) -> Path:
        """Return the folder of a checkpoint that is not whole yet."""
        return self.directory / f"{step}.unfinished"

    def finish(self, step: int) -> None:
        """Give a checkpoint its checksums, then its name; a power loss leaves it whole or absent.

        An earlier checkpoint of this step is replaced.
        """
        write_checksums(self.unfinished(step))
        replaced = self.directory / f"{step}.replaced"
        if self.of_step(step).exists():
            self.of_step(step).rename(replaced)
        self.unfinished(step).rename(self.of_step(step))
        sync(self.directory)
        self._damage.pop(step, None)
        if replaced.exists():
            shutil.rmtree(replaced)

    def steps(self) -> list[int]:
        """Return the steps of all finished checkpoints, ascending."""
        return sorted(int(path.name) for path in self._paths() if _is_checkpoint(path))

    def own_paths(self) -> list[Path]:
        """Return every folder here that a run made: checkpoints, unfinished, deleted and damaged ones."""
        names = (_UNFINISHED, _REPLACED, _DAMAGED)
        return [
            path for path in self._paths() if _is_checkpoint(path) or any(name.fullmatch(path.name) for name in names)
        ]

    def record(self, step: int) -> dict[str, Any]:
        """Return the record saved with a checkpoint.

        Raises:
          DataError: it cannot be read.
        """
        path = self.of_step(step) / "record" / "metadata"
        record = read_json(path)
        if not isinstance(record, dict) or not isinstance(record.get("metrics"), dict):
            raise DataError(f"{path}: not the record of a checkpoint")
        return record

    def usable(self, steps: Iterable[int]) -> Iterator[int]:
        """Yield those of some steps whose checkpoints are whole, in order; a warning names each that is damaged.

        A checkpoint without checksums, of an earlier version, comes after all that have some, with a warning.
        """
        without = []
        for step in steps:
            if not has_checksums(self.of_step(step)):
                without.append(step)
            elif self._is_whole(step):
                yield step
        for step in without:
            if self._is_whole(step):
                logger.warning("%s: has no checksums; it is used unchecked", self.of_step(step))
                yield step

    def best(self, ranking: Ranking) -> list[int]:
        """Return the steps of evaluated checkpoints, the best first; the earlier one of equals."""
        values = {}
        for step in self.steps():
            with contextlib.suppress(DataError):  # `usable` names a damaged one.
                value = self.record(step)["metrics"].get(ranking.metric)
                # A run that diverged has metrics that are not finite: it is never the best.
                if value is not None and math.isfinite(value):
                    values[step] = value
        sign = -1 if ranking.higher_is_better else 1
        return sorted(values, key=lambda step: (sign * values[step], step))

    def set_aside_after(self, step: int) -> None:
        """Rename the checkpoints past `step` to `<step>.damaged`: the run makes them again."""
        for later in self.steps():
            if later > step:
                aside = self.directory / f"{later}.damaged"
                if aside.exists():
                    shutil.rmtree(aside)
                self.of_step(later).rename(aside)

    def prune(self, *, keep_last: int, keep_best: int, keep_every: int, ranking: Ranking) -> None:
        """Delete all checkpoints but the latest, the best, each n-th, and the latest that has checksums."""
        steps = self.steps()
        checked = [step for step in steps if has_checksums(self.of_step(step))]
        keep = {*steps[-keep_last:], *checked[-1:], *self.best(ranking)[:keep_best]}
        keep |= {step for step in steps if keep_every and step % keep_every == 0}
        for step in steps:
            if step not in keep:
                # Deleting takes a while, and a kill in the middle of it must not leave half a checkpoint.
                deleted = self.directory / f"{step}.deleted"
                self.of_step(step).rename(deleted)
                shutil.rmtree(deleted)

    def _put_back(self, replaced: Path, path: Path) -> None:
        if path.exists():
            shutil.rmtree(replaced)
        else:
            replaced.rename(path)

    def _paths(self) -> list[Path]:
        return list(self.directory.iterdir()) if self.directory.is_dir() else []

    def _is_whole(self, step: int) -> bool:
        """Return whether a checkpoint is as it was written; the first answer is kept, with one warning."""
        if step not in self._damage:
            self._damage[step] = self._find_damage(step)
            if self._damage[step]:
                logger.warning("%s: damaged, so it is not used (%s)", self.of_step(step), self._damage[step])
        return self._damage[step] is None

    def _find_damage(self, step: int) -> str | None:
        folder = self.of_step(step)
        if has_checksums(folder) and (damage := find_damage(folder)):
            return damage
        try:
            held = self.record(step).get("step", step)
        except DataError:
            return "its record cannot be read"
        # A copy of another checkpoint under this name.
        return None if held == step else f"it holds step {held}"


def _is_checkpoint(path: Path) -> bool:
    if not _CHECKPOINT.fullmatch(path.name) or path.is_symlink():
        return False
    return has_checksums(path) or any((path / name).exists() for name in ("_CHECKPOINT_METADATA", "record", "params"))
