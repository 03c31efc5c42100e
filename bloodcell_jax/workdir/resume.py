"""Whether the same command may resume the run that a workdir holds."""

import contextlib
from collections.abc import Collection
from typing import Any

from bloodcell_jax.config import Config, leaves
from bloodcell_jax.config.data import SCALE
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.workdir.checkpoint_folders import CheckpointFolders
from bloodcell_jax.workdir.layout import Workdir


def check_resumable(workdir: Workdir, config: Config, data_hash: str, steps: int) -> bool:
    """Return whether the workdir holds an earlier part of this very run; False if it holds none.

    Args:
      workdir: may be absent.
      config: resolved.
      data_hash: sha256 of the dataset.
      steps: the steps of all stages together.

    Raises:
      UsageError: it holds a run that differs in more than may change; names each field, old and new value.
      DataError: a file of the run is missing or damaged.
    """
    if not workdir.config.exists():
        if steps_there := CheckpointFolders(workdir.checkpoints).steps():
            raise DataError(
                f"{workdir.config}: missing, and {workdir.checkpoints} holds step {steps_there[-1]} of a run; put the "
                "file back, or use another --workdir, or --overwrite"
            )
        return False
    old = workdir.read_config()
    changed = changed_fields(old, config)
    if workdir.model.exists():
        # The run's model says how files are looked at, and was made with the old values.
        others = {path for path, _, _ in leaves(config)} - {f"data.{name}" for name in SCALE}
        changed += [each for each in differences(old, config, free=others) if each not in changed]
    environment = workdir.read_environment() if workdir.environment.exists() else None
    if environment and environment["data"]["sha256"] != data_hash:
        changed.append(f"the data of data.source: {old.data.source} -> {config.data.source} (their hashes differ)")
    if environment and environment.get("steps", 0) > steps:
        changed.append(f"steps of all stages: {environment['steps']} -> {steps}, and the last stage may only grow")
    if changed:
        raise UsageError(
            f"--workdir={workdir}: holds a run with another configuration ({'; '.join(changed)}); "
            "use its configuration, another --workdir, or --overwrite"
        )
    return True


def check_same_splits(workdir: Workdir, splits: dict[str, Any]) -> None:
    """Check that the run's splits and groups are those it began with, so that it is not tested on what it learned from.

    Args:
      splits: what `describe_splits` returns.

    Raises:
      UsageError: they differ.
      DataError: nothing says any more what they were.
    """
    begun_with = _hash_of_splits(workdir)
    if begun_with is not None and begun_with != splits["sha256"]:
        raise UsageError(
            f"{workdir.splits}: the run's splits or groups are not those that its configuration gives now (other "
            "groups, or another version of the library?); use another --workdir, or --overwrite"
        )


def _hash_of_splits(workdir: Workdir) -> str | None:
    """Return the sha256 of the splits that a run began with; None if it has no checkpoint yet.

    Each checkpoint keeps it too: without that, who lost splits.json could train on what the run is tested on.
    """
    with contextlib.suppress(DataError):
        if workdir.splits.exists():
            return workdir.read_splits_record()["sha256"]
    folders = CheckpointFolders(workdir.checkpoints)
    newest = next(folders.usable(folders.steps()[::-1]), None)
    if newest is None:
        return None
    if (recorded := folders.record(newest).get("splits")) is None:
        raise DataError(
            f"{workdir.splits}: missing or damaged, and the checkpoints do not say what the run's splits were; put the "
            "file back, or use another --workdir, or --overwrite"
        )
    return recorded


def step_to_resume(folders: CheckpointFolders, total_steps: int) -> int:
    """Return the step of the newest whole checkpoint of a run, 0 if it has none, and set later ones aside.

    Raises:
      DataError: there are checkpoints and none is whole.
    """
    steps = [step for step in folders.steps() if step <= total_steps]
    step = next(folders.usable(steps[::-1]), 0)
    if steps and not step:
        raise DataError(
            f"{folders.directory}: none of the checkpoints ({', '.join(map(str, steps))}) is whole; put a copy in "
            "their place, or begin anew with --overwrite"
        )
    folders.set_aside_after(step)
    return step


def changed_fields(old: Config, new: Config) -> list[str]:
    """Return `field: old -> new` of each field that differs and may not."""
    free = {path for path, field, _ in leaves(new) if field.metadata["may_change"]}
    # The last stage may grow; the steps tell whether it does, since epochs may have become steps.
    last = len(new.stages) - 1
    if len(old.stages) == len(new.stages):
        free |= {f"stages[{last}].epochs", f"stages[{last}].steps"}
    return differences(old, new, free=free)


def differences(old: Config, new: Config, *, free: Collection[str]) -> list[str]:
    """Return `field: old -> new` of each field that differs and is not free to."""
    old_values, new_values = ({path: value for path, _, value in leaves(config)} for config in (old, new))
    return [
        f"{path}: {old_values.get(path)!r} -> {new_values.get(path)!r}"
        for path in sorted(old_values.keys() | new_values.keys())
        if old_values.get(path) != new_values.get(path) and path not in free
    ]
