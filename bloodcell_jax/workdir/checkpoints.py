"""Checkpoints by Orbax: asynchronous, atomic, restored into explicit trees."""

import contextlib
import math
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding

from bloodcell_jax.errors import DataError, MachineError

# TensorStore's failed writes are ValueErrors that begin with an absl status code.
_TENSORSTORE_ERROR = re.compile(r"[A-Z_]+: ")

_TREES = ("params", "ema", "optimizer", "progress")


@dataclass(frozen=True)
class Ranking:
    """What tells the best checkpoint: a metric of its record, and which way is better."""

    metric: str
    higher_is_better: bool


class Checkpoints:
    """The checkpoints of one run: `<directory>/<step>/`, each made of named trees and a record of JSON values.

    The record holds what no array does: `metrics` (by which the best is known) and the seconds trained.
    """

    def __init__(self, directory: Path, *, read_only: bool = False):
        self._directory = directory.absolute()
        # Which ones to keep is decided by `prune`: Orbax forgets metrics when a run is resumed.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None, create=not read_only, read_only=read_only, cleanup_tmp_directories=not read_only
        )
        # Named here so that a checkpoint can be read by a process that never saved one.
        handlers: dict[str, Any] = {name: ocp.StandardCheckpointHandler() for name in _TREES}
        handlers["record"] = ocp.JsonCheckpointHandler()
        self._manager = ocp.CheckpointManager(self._directory, options=options, item_handlers=handlers)

    def steps(self) -> list[int]:
        """Return the steps of all finished checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, trees: dict[str, Any], record: dict) -> None:
        """Start saving; returns once the arrays may be donated. Waits for a save still under way.

        Raises:
          MachineError: the files cannot be written.
        """
        self._check_room(step, trees)
        items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        with self._saving():
            self._manager.save(step, args=ocp.args.Composite(**items, record=ocp.args.JsonSave(record)), force=True)

    def record(self, step: int) -> dict:
        """Return the record saved with a checkpoint.

        Raises:
          DataError: it cannot be read.
        """
        try:
            return self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._unreadable(step, error) from error

    def restore(self, step: int, like: dict[str, Any], sharding: Sharding) -> dict[str, Any]:
        """Return named trees of a checkpoint as arrays under `sharding`.

        Args:
          like: trees of arrays or shapes by name: what the checkpoint must hold, exactly.

        Raises:
          DataError: it holds something else, or cannot be read.
        """
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like)
        self._check_names(step, abstract)
        items = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged checkpoint.
            raise self._unreadable(step, error) from error
        return {name: restored[name] for name in like}

    def prune(self, *, keep_last: int, keep_best: int, ranking: Ranking) -> None:
        """Delete all but the latest and the best finished checkpoints."""
        steps = self.steps()
        keep = set(steps[-keep_last:]) | set(self.best(ranking, steps)[:keep_best])
        for step in steps:
            if step not in keep:
                self._manager.delete(step)

    def best(self, ranking: Ranking, steps: Iterable[int] | None = None) -> list[int]:
        """Return the steps of evaluated checkpoints, the best first; the earlier one of equals."""
        steps = self.steps() if steps is None else steps
        values = {step: self.record(step)["metrics"].get(ranking.metric) for step in steps}
        sign = -1 if ranking.higher_is_better else 1
        # A run that diverged has metrics that are not finite: it is never the best.
        evaluated = [step for step, value in values.items() if value is not None and math.isfinite(value)]
        return sorted(evaluated, key=lambda step: (sign * values[step], step))

    def wait(self) -> None:
        """Block until the save under way is committed.

        Raises:
          MachineError: it failed.
        """
        with self._saving():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for saves and free Orbax's threads.

        Raises:
          MachineError: a save failed.
        """
        with self._saving():
            self._manager.close()

    def _check_room(self, step: int, trees: dict[str, Any]) -> None:
        """Look at the disk before Orbax does: it would fill the disk and fail in several threads at once."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(trees))
        free = shutil.disk_usage(self._directory).free
        if needed > free:
            raise MachineError(
                f"{self._directory}: checkpoint {step} needs {needed / 1e6:,.1f} MB and the disk has {free / 1e6:,.1f}"
                f"; make room, then run the same command to resume{self._place_to_go_on()}"
            )

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) and not _TENSORSTORE_ERROR.match(str(error)):
                raise
            raise MachineError(
                f"{self._directory}: a checkpoint cannot be written ({_in_one_line(error)}); make room or the folder "
                f"writable, then run the same command to resume{self._place_to_go_on()}"
            ) from error

    def _place_to_go_on(self) -> str:
        steps = self.steps()
        return f" from step {steps[-1]}" if steps else ""

    def _check_names(self, step: int, abstract: dict[str, Any]) -> None:
        """Compare names and shapes first: Orbax's own message hides the cause."""
        try:
            stored = self._manager.item_metadata(step)
            found = _shapes_by_name({name: getattr(stored[name], "tree", stored[name]) for name in abstract})
        except Exception as error:
            raise self._unreadable(step, error) from error
        expected = _shapes_by_name(abstract)
        missing = [f"-{name} {expected[name]}" for name in expected if found.get(name) != expected[name]]
        extra = [f"+{name} {found[name]}" for name in found if expected.get(name) != found[name]]
        if missing or extra:
            changes = ", ".join((missing + extra)[:8])
            raise DataError(
                f"{self._directory / str(step)}: does not hold this configuration's state; expected (-), found (+): "
                f"{changes}{' ...' if len(missing + extra) > 8 else ''}"
            )

    def _unreadable(self, step: int, error: Exception) -> DataError:
        reason = f"{type(error).__name__}: {_in_one_line(error)}"
        return DataError(
            f"{self._directory / str(step)}: checkpoint cannot be read ({reason}); "
            "delete this folder to resume from the one before"
        )


def _in_one_line(error: Exception) -> str:
    """Return an error in one line without what TensorStore adds of its own source, paths in the middle cut short."""
    text = " ".join(str(error).split()).partition(" [source")[0]
    return text if len(text) <= 300 else f"{text[:120]} ... {text[-160:]}"


def _shapes_by_name(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


def restore_params(
    checkpoints: Checkpoints, step: int, shapes: Any, ema_decay: float | None, sharding: Sharding
) -> Any:
    """Return the parameters of a checkpoint that evaluation uses: their average if `ema_decay` is set."""
    name = "params" if ema_decay is None else "ema"
    return checkpoints.restore(step, {name: shapes}, sharding)[name]
