"""Checkpoints by Orbax: asynchronous, atomic, restored into explicit trees."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Sharding

from bloodcell_jax.devices.processes import shared
from bloodcell_jax.errors import DataError, MachineError, is_out_of_memory
from bloodcell_jax.workdir.checkpoint_folders import CheckpointFolders
from bloodcell_jax.workdir.checksums import has_checksums

_TREES = ("params", "ema", "optimizer", "progress")
# Orbax cuts a replicated array into a piece for each device, so that hosts share the writing. Every cut of every shape
# is a program to compile: with 8 devices, the first save of convnext_atto took 8.9 s of processor time, and 0.7 s
# without cuts. So only arrays are cut of which each device still gets a large piece.
_SMALLEST_PIECE = 2**26
# TensorStore's failed writes are ValueErrors that begin with an absl status code.
_TENSORSTORE_ERROR = re.compile(r"[A-Z_]+: ")


class Checkpoints:
    """Saves and restores the checkpoints of one run, each made of named trees and a record of JSON values.

    Attributes:
      folders: where they lie, and which of them are whole.
    """

    def __init__(self, directory: Path, *, read_only: bool = False):
        self.folders = CheckpointFolders(directory)
        # Named here so that a checkpoint can be read by a process that never saved one.
        handlers: dict[str, Any] = {name: _tree_handler() for name in _TREES}
        handlers["record"] = ocp.JsonCheckpointHandler()
        self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(**handlers))
        self._finisher = ThreadPoolExecutor(1, "checkpoint")
        self._under_way: Future[None] | None = None
        if not read_only and jax.process_index() == 0:
            with self.changing():
                self.folders.create()

    def save(self, step: int, trees: dict[str, Any], record: dict[str, Any]) -> None:
        """Start saving; returns once the arrays may be donated. Waits for a save still under way.

        Raises:
          MachineError: the files cannot be written.
        """
        self.wait()
        self._check_room(step, trees)
        items = {name: ocp.args.PyTreeSave(tree) for name, tree in trees.items()}
        arguments = ocp.args.Composite(**items, record=ocp.args.JsonSave(record | {"step": step}))
        with self.changing():
            self._orbax.save(self.folders.unfinished(step), args=arguments, force=True)
        self._under_way = self._finisher.submit(self._finish, step)

    def wait(self) -> None:
        """Block until the save under way is committed.

        Raises:
          MachineError: it failed.
        """
        if self._under_way is not None:
            try:
                with self.changing():
                    self._under_way.result()
            finally:
                self._under_way = None

    def restore(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        """Return named trees of a checkpoint, which `folders.usable` gave.

        Args:
          like: trees of shapes with shardings by name: what the checkpoint must hold, exactly.

        Raises:
          DataError: it holds something else, or cannot be read.
        """
        self._check_names(step, like)
        items = {
            name: ocp.args.PyTreeRestore(tree, restore_args=ocp.checkpoint_utils.construct_restore_args(tree))
            for name, tree in like.items()
        }
        with self._reading(step):
            restored = self._orbax.restore(self.folders.of_step(step), args=ocp.args.Composite(**items))
        return {name: restored[name] for name in like}

    def prune(self, **keep: Any) -> None:
        """Delete the checkpoints that are not to be kept, see `CheckpointFolders.prune`.

        Raises:
          MachineError: the folders cannot be changed.
        """
        if jax.process_index() == 0:
            with self.changing():
                self.folders.prune(**keep)

    @property
    def is_saving(self) -> bool:
        """Whether a save is still under way."""
        return self._under_way is not None and not self._under_way.done()

    def close(self) -> None:
        """Wait for saves and free Orbax's threads.

        Raises:
          MachineError: a save failed.
        """
        try:
            self.wait()
        finally:
            self._finisher.shutdown()
            self._orbax.close()

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Turn what the machine refuses inside the context into one line.

        Raises:
          MachineError: names the reason and the step from which the run can go on.
        """
        try:
            yield
        except (OSError, ValueError) as error:
            # A process that died is no matter of the disk. Alone, only a clock that jumps makes Orbax wait too long.
            other_process = jax.process_count() > 1 and (isinstance(error, TimeoutError) or "Gloo" in str(error))
            if other_process or (isinstance(error, ValueError) and not _TENSORSTORE_ERROR.match(str(error))):
                raise
            raise MachineError(
                f"{self.folders.directory}: a checkpoint cannot be written ({_in_one_line(error)}); make room or the "
                f"folder writable, then run the same command to resume{self._place_to_go_on()}"
            ) from error

    def _finish(self, step: int) -> None:
        """Wait for Orbax's files, of which the first process makes a checkpoint, and for the first process."""
        self._orbax.wait_until_finished()
        shared(f"checkpoint {step}", lambda: self.folders.finish(step))

    def _check_room(self, step: int, trees: dict[str, Any]) -> None:
        """Look at the disk before Orbax does: it would fill the disk and fail in several threads at once."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(trees))
        with self.changing():
            free = shutil.disk_usage(self.folders.directory).free
        if needed > free:
            raise MachineError(
                f"{self.folders.directory}: checkpoint {step} needs {needed / 1e6:,.1f} MB and the disk has "
                f"{free / 1e6:,.1f}; make room, then run the same command to resume{self._place_to_go_on()}"
            )

    def _place_to_go_on(self) -> str:
        with contextlib.suppress(OSError):
            steps = self.folders.steps()
            return f" from step {steps[-1]}" if steps else ""
        return ""

    def _check_names(self, step: int, abstract: dict[str, Any]) -> None:
        """Compare names and shapes first: Orbax's own message hides the cause."""
        with self._reading(step):
            stored: Any = self._orbax.metadata(self.folders.of_step(step)).item_metadata
            found = _shapes_by_name({name: getattr(stored[name], "tree", stored[name]) for name in abstract})
        expected = _shapes_by_name(abstract)
        missing = [f"-{name} {expected[name]}" for name in expected if found.get(name) != expected[name]]
        extra = [f"+{name} {found[name]}" for name in found if expected.get(name) != found[name]]
        if missing or extra:
            changes = ", ".join((missing + extra)[:8])
            raise DataError(
                f"{self.folders.of_step(step)}: does not hold the state of this configuration (another configuration "
                "or version of the library?); finish it with what began it, or use another --workdir, or --overwrite. "
                f"Expected (-), found (+): {changes}{' ...' if len(missing + extra) > 8 else ''}"
            )

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        folder = self.folders.of_step(step)
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged checkpoint.
            if is_out_of_memory(error) or (jax.process_count() > 1 and has_checksums(folder)):
                raise  # The files are good: the cause is memory, or another process that died.
            reason = f"{type(error).__name__}: {_in_one_line(error)}"
            raise DataError(
                f"{folder}: checkpoint cannot be read ({reason}); rename it to {step}.damaged to go on from the one "
                "before"
            ) from error


def _tree_handler() -> ocp.PyTreeCheckpointHandler:
    array_handler = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_SMALLEST_PIECE)
    numpy_handler = ocp.type_handlers.get_type_handler(np.ndarray)
    registry = ocp.type_handlers.create_type_handler_registry((np.ndarray, numpy_handler), (jax.Array, array_handler))
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


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
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
    return checkpoints.restore(step, {name: like})[name]
