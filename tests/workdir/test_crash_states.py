"""Whatever operation of the file system a crash follows, the run goes on from a whole checkpoint.

Every state that a disk can be in while checkpoints and JSON files are written and deleted is copied: right before each
fsync, rename and removal of this library, once with all that was written, and once as a power loss leaves it, without
the content of files that were not synced.
"""

import contextlib
import errno
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from bloodcell_jax.errors import MachineError
from bloodcell_jax.workdir.checkpoint_folders import CheckpointFolders, Ranking
from bloodcell_jax.workdir.checkpoints import Checkpoints
from bloodcell_jax.workdir.json_files import read_json, write_json
from bloodcell_jax.workdir.resume import step_to_resume

RANKING = Ranking("val/f1_macro", higher_is_better=True)
KERNEL = jax.ShapeDtypeStruct((9,), np.float32, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))
OPERATIONS = ("fsync", "rename", "replace", "unlink", "rmdir")


class Disk:
    """Copies a folder before each operation that changes it, with the numbers of the files that are synced."""

    def __init__(self, folder, copies, monkeypatch):
        self.folder, self.copies, self.states = folder, copies, []
        self.synced, self.safe_step, self.watches = set(), 0, False
        for name in OPERATIONS:
            monkeypatch.setattr(os, name, self._recording(name, getattr(os, name)))

    def _recording(self, name, operation):
        def run(*args, **kwargs):
            if self.watches:
                self._copy(name)
            if name == "fsync":
                self.synced.add(os.fstat(args[0]).st_ino)
            return operation(*args, **kwargs)

        return run

    def _copy(self, name):
        self.watches = False  # what copying does is no operation of the run
        for lost in (False, True):
            copy = self.copies / f"{len(self.states)}-{name}"
            shutil.copytree(self.folder, copy, copy_function=self._as_after_power_loss if lost else shutil.copy)
            self.states.append((copy, self.safe_step))
        self.watches = True

    def _as_after_power_loss(self, source, target):
        if os.stat(source).st_ino in self.synced:
            shutil.copy(source, target)
        else:
            Path(target).touch()


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """Return the states of a disk, each with the step that must not be lost in it."""
    folder, copies = tmp_path_factory.mktemp("disk"), tmp_path_factory.mktemp("states")
    with pytest.MonkeyPatch.context() as monkeypatch:
        disk = Disk(folder, copies, monkeypatch)
        with contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints:
            for step in (2, 4, 6, 6, 8):  # 6 twice: a signal left it unevaluated
                disk.watches = True
                write_json(folder / "config.json", {"step": step})
                checkpoints.prune(keep_last=1, keep_best=0, keep_every=0, ranking=RANKING)
                checkpoints.save(step, {"params": {"kernel": np.full(9, step, np.float32)}}, {"metrics": {}})
                checkpoints.wait()
                disk.watches, disk.safe_step = False, step
    return disk.states


def test_the_states_are_many_and_of_every_kind(states):
    kinds = {copy.name.partition("-")[2] for copy, _ in states}
    assert kinds == {"fsync", "rename", "replace", "unlink", "rmdir"}
    assert len(states) > 200


def test_a_crash_loses_no_finished_checkpoint_and_leaves_nothing_to_delete_by_hand(states):
    for number, (copy, safe_step) in enumerate(states):
        folders = CheckpointFolders(copy / "checkpoints")
        folders.create()
        step = step_to_resume(folders, 8)
        assert step >= safe_step, copy
        assert sorted(path.name for path in folders.directory.iterdir()) == sorted(map(str, folders.steps())), copy
        if step and number % 40 == 0:  # its checksums are right; Orbax takes a while to read it
            with contextlib.closing(Checkpoints(folders.directory, read_only=True)) as checkpoints:
                restored = checkpoints.restore(step, {"params": {"kernel": KERNEL}})
            assert (np.asarray(restored["params"]["kernel"]) == step).all(), copy
        if (copy / "config.json").exists():
            assert read_json(copy / "config.json")["step"] in (2, 4, 6, 8)


class Failing:
    """Raises OSError in place of the n-th call of an operation."""

    def __init__(self, operation, code):
        self.operation, self.code, self.calls_left = operation, code, -1

    def __call__(self, *args, **kwargs):
        self.calls_left -= 1
        if self.calls_left == -1:
            raise OSError(self.code, os.strerror(self.code))
        return self.operation(*args, **kwargs)


def train(directory):
    """Save and prune as a run does, until the machine refuses; return the last step that is safe, and the refusal."""
    safe_step = 0
    try:
        with contextlib.closing(Checkpoints(directory)) as checkpoints:
            for step in (2, 4, 6):
                checkpoints.save(step, {"params": {"kernel": np.full(9, step, np.float32)}}, {"metrics": {}})
                checkpoints.wait()
                safe_step = step
                checkpoints.prune(keep_last=1, keep_best=0, keep_every=0, ranking=RANKING)
    except MachineError as error:
        return safe_step, str(error)
    return safe_step, None


@pytest.mark.parametrize("name", ["fsync", "rename", "rmdir"])
def test_an_operation_that_fails_ends_in_one_line_and_loses_no_checkpoint(tmp_path, monkeypatch, name):
    failing = Failing(getattr(os, name), errno.EIO)
    monkeypatch.setattr(os, name, failing)
    for failing_call in (1, 14):
        failing.calls_left = failing_call
        safe_step, refusal = train(tmp_path / str(failing_call))
        # What fails in tidying up a temporary file is no matter.
        assert os.strerror(errno.EIO) in refusal if refusal else safe_step == 6
        failing.calls_left = -1
        assert step_to_resume(CheckpointFolders(tmp_path / str(failing_call)), 6) >= safe_step
        assert train(tmp_path / str(failing_call)) == (6, None)
