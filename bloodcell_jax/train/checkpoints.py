"""Checkpoints by Orbax: asynchronous, atomic, restored into explicit trees."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding

from bloodcell_jax.errors import DataError, MachineError

_TREES = ("params", "ema", "optimizer", "progress")


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
        handlers = {name: ocp.StandardCheckpointHandler() for name in _TREES}
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
        items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        try:
            self._manager.save(step, args=ocp.args.Composite(**items, record=ocp.args.JsonSave(record)), force=True)
        except OSError as error:
            raise MachineError(f"{self._directory}: checkpoint {step} cannot be written ({error})") from error

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

    def prune(self, *, keep_last: int, keep_best: int, metric: str) -> None:
        """Delete all but the latest and the best finished checkpoints."""
        steps = self.steps()
        keep = set(steps[-keep_last:]) | set(self.best(metric, steps)[:keep_best])
        for step in steps:
            if step not in keep:
                self._manager.delete(step)

    def best(self, metric: str, steps: Iterable[int] | None = None) -> list[int]:
        """Return the steps of evaluated checkpoints, the best by `metric` first; of equals the earlier one."""
        steps = self.steps() if steps is None else steps
        values = {step: self.record(step)["metrics"].get(metric) for step in steps}
        sign = 1 if metric.endswith("/loss") else -1
        evaluated = [step for step, value in values.items() if value is not None]
        return sorted(evaluated, key=lambda step: (sign * values[step], step))

    def wait(self) -> None:
        """Block until the save under way is committed.

        Raises:
          MachineError: it failed.
        """
        try:
            self._manager.wait_until_finished()
        except OSError as error:
            raise MachineError(f"{self._directory}: a checkpoint cannot be written ({error})") from error

    def close(self) -> None:
        """Wait for saves and free Orbax's threads."""
        self._manager.close()

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
        reason = " ".join(str(error).split())[:300]
        return DataError(
            f"{self._directory / str(step)}: checkpoint cannot be read ({type(error).__name__}: {reason}); "
            "delete this folder to go on from the one before"
        )


def _shapes_by_name(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


def restore_params(
    checkpoints: Checkpoints, step: int, shapes: Any, ema_decay: float | None, sharding: Sharding
) -> Any:
    """Return the parameters of a checkpoint that evaluation uses: their average where `ema_decay` is set."""
    name = "params" if ema_decay is None else "ema"
    return checkpoints.restore(step, {name: shapes}, sharding)[name]
