"""A run that the system refuses something ends with one line and exit code 5, and goes on afterwards."""

import resource
import time

import pytest

from bloodcell_jax.workdir.checkpoint_folders import CheckpointFolders

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


def end_in_one_line(process, workdir):
    """Wait for a process to end; check that its last line, and no other, tells of an error, and names its folder."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 5, errors
    *before, last = errors.splitlines()
    assert last.startswith(f"bloodcell: {workdir / 'checkpoints'}: "), errors
    assert not any("Traceback" in line or str(workdir) in line for line in before), errors


def go_on(start, workdir, trained, assert_same_run):
    process = start(workdir)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert_same_run(workdir, trained)


@pytest.mark.parametrize(
    ("limit", "value"),
    [*((resource.RLIMIT_NOFILE, handles) for handles in (10, 12, 20, 40)), (resource.RLIMIT_FSIZE, 60_000)],
)
def test_few_file_handles_and_small_files(start, trained, tmp_path, assert_same_run, limit, value):
    process = start(tmp_path / "run")
    resource.prlimit(process.pid, limit, (value, value))
    end_in_one_line(process, tmp_path / "run")
    go_on(start, tmp_path / "run", trained, assert_same_run)


def test_a_workdir_that_is_renamed(start, trained, tmp_path, assert_same_run):
    process = start(tmp_path / "run")
    while not CheckpointFolders(tmp_path / "run" / "checkpoints").steps()[-1:] >= [8]:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    (tmp_path / "run").rename(tmp_path / "renamed")
    end_in_one_line(process, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    go_on(start, tmp_path / "renamed", trained, assert_same_run)
