"""A run's folder: who owns it, what was asked for, and whether the same command may go on in it."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.config import Config, from_dict, leaves
from bloodcell_jax.errors import DataError, MachineError, UsageError

# What a run writes; --overwrite deletes these and nothing else. A folder goes once it is empty.
_OWN = (
    *("config.json", "environment.json", "splits.json", "metrics.jsonl", "events.out.tfevents.*"),
    *("config.json.tmp", "environment.json.tmp", "splits.json.tmp", "metrics.tmp"),
    *("checkpoints/[0-9]*", "eval/*/*.json", "eval/*/*.json.tmp", "eval/*/predictions.csv"),
    *("report/index.html", "report/.index.html.*", "report/training_pictures.png", "report/training_pictures.png.tmp"),
    *("profile/plugins/profile/*/*.xplane.pb", "profile/plugins/profile/*/*.trace.json.gz"),
    *("profile/plugins/profile/*", "profile/plugins/profile", "profile/plugins", "profile"),
    *("checkpoints", "eval/*", "eval", "report"),
)

_FREE_ON_RESUME = (
    "train.backend",
    "train.log_every",
    "train.evaluate_every",
    "train.checkpoint_every",
    "train.keep_last",
    "train.keep_best",
    "data.source",  # the data hash must be equal
    "data.data_dir",
    "data.skip_bad",
    "data.feed",
    "data.workers",
    "evaluate.",
)


def check_usable(workdir: Path) -> None:
    """Check that a workdir can be written to, without creating it.

    Raises:
      UsageError: it is a file, or lies below one.
      MachineError: it may not be written to.
    """
    place = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    if not place.is_dir():
        raise UsageError(f"--workdir={workdir}: {place} is a file; name a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise MachineError(f"--workdir={workdir}: {place} is not writable; choose another folder or its permissions")


@contextlib.contextmanager
def owned(workdir: Path) -> Iterator[None]:
    """Create the workdir and hold it for this process alone.

    Raises:
      MachineError: another run holds it, or it cannot be created.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except OSError as error:
        raise MachineError(f"--workdir={workdir}: cannot be written to ({error.strerror})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise MachineError(f"--workdir={workdir}: in use by another run; wait for it or choose another") from error
        yield


def delete_run(workdir: Path) -> None:
    """Delete what a run wrote into a workdir, and nothing that others put there."""
    for pattern in _OWN:
        for path in list(workdir.glob(pattern)):
            if not path.is_dir():
                path.unlink()
            elif path.parent.name == "checkpoints":
                shutil.rmtree(path)
            elif not any(path.iterdir()):
                path.rmdir()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line that the machine does not let a file be written.

    Raises:
      MachineError: names the file and the reason.
    """
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"{path}: cannot be written ({error.strerror or error}); make room or the folder writable, then run the "
            "same command to go on"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file so that it is whole or absent, never half-written.

    Raises:
      MachineError: it cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(path)


def update_json(path: Path, values: dict) -> None:
    """Set top-level values of a JSON file."""
    write_json(path, read_json(path) | values)


def read_json(path: Path) -> Any:
    """Read a JSON file of a workdir.

    Raises:
      DataError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; is {path.parent} the workdir of a run?") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not JSON ({error}); delete it and run the command that wrote it") from error


def read_metrics(workdir: Path) -> list[dict]:
    """Return the lines of a run's `metrics.jsonl`, in order; a last line still being written is left out.

    Raises:
      DataError: another line is not JSON.
    """
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    *lines, _unfinished = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error}); delete that line") from error
    return records


def read_config(workdir: Path) -> Config:
    """Return the resolved configuration of a run.

    Raises:
      DataError: there is none, or it is not a configuration of this version.
    """
    values = read_json(workdir / "config.json")
    try:
        return from_dict(values)
    except UsageError as error:
        raise DataError(f"{workdir / 'config.json'}: {error}") from error


def read_splits(workdir: Path) -> dict[str, np.ndarray]:
    """Return the example indices of each split of a run, int32.

    Raises:
      DataError: there are none.
    """
    splits = read_json(workdir / "splits.json")["splits"]
    return {name: np.array(indices, np.int32) for name, indices in splits.items()}


def check_resumable(workdir: Path, config: Config, data_hash: str, steps: int) -> bool:
    """Return whether the workdir holds an earlier part of this very run; False where it holds none.

    Args:
      workdir: the run's folder; may be absent.
      config: resolved.
      data_hash: of the dataset.
      steps: of all stages together.

    Raises:
      UsageError: it holds a run that differs in more than may change; names each field, old and new value.
    """
    if not (workdir / "config.json").exists():
        return False
    old, new = read_config(workdir), config
    old_values = {path: value for path, _, value in leaves(old)}
    new_values = {path: value for path, _, value in leaves(new)}
    changed = [
        f"{path}: {old_values.get(path)!r} -> {new_values.get(path)!r}"
        for path in sorted(old_values.keys() | new_values.keys())
        if old_values.get(path) != new_values.get(path) and not _may_change(path, old, new)
    ]
    environment = read_json(workdir / "environment.json") if (workdir / "environment.json").exists() else None
    if environment and environment["data"]["sha256"] != data_hash:
        changed.append(f"the data of data.source: {old.data.source} -> {new.data.source} (their hashes differ)")
    if environment and environment.get("steps", 0) > steps:
        changed.append(f"steps of all stages: {environment['steps']} -> {steps}, and the last stage may only grow")
    if changed:
        raise UsageError(
            f"--workdir={workdir}: holds a run with another configuration ({'; '.join(changed)}); "
            "use its configuration, another --workdir, or --overwrite"
        )
    return True


def _may_change(path: str, old: Config, new: Config) -> bool:
    if any(path.startswith(free) for free in _FREE_ON_RESUME):
        return True
    # Whether it grows is told by the steps: epochs may have become steps.
    last = len(new.stages) - 1
    return len(old.stages) == len(new.stages) and path in (f"stages[{last}].epochs", f"stages[{last}].steps")
