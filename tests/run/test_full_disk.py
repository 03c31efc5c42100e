"""A machine that refuses to store anything more ends a run with one line and exit code 5, and loses nothing stored."""

import contextlib
import resource
import shutil

import numpy as np
import pytest

from bloodcell_jax.errors import MachineError
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.checkpoints import Checkpoints
from bloodcell_jax.workdir.json_files import write_json
from bloodcell_jax.workdir.json_lines import JsonLines
from bloodcell_jax.workdir.records import check_metrics_line


@contextlib.contextmanager
def files_of_at_most(size):
    """Let the kernel refuse to write past `size` bytes of any file, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def trees_of(size):
    # Noise, which does not compress.
    return {"params": {"kernel": np.random.default_rng(0).random(size, np.float32)}}


def test_a_checkpoint_larger_than_the_disk_is_refused_before_a_byte_is_written(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, trees_of(8), {"metrics": {}})
        checkpoints.wait()
        huge = {"params": {"kernel": np.broadcast_to(np.float32(0), (2**30, 2**20))}}
        with pytest.raises(MachineError, match=r"checkpoint 2 needs .* MB and the disk has .* from step 1$"):
            checkpoints.save(2, huge, {"metrics": {}})
        assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_checkpoint_that_does_not_get_through_leaves_the_one_before(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, trees_of(8), {"metrics": {}})
        checkpoints.wait()
        with files_of_at_most(50_000):
            checkpoints.save(2, trees_of(100_000), {"metrics": {}})
            with pytest.raises(MachineError, match=r"File too large.* from step 1$"):
                checkpoints.wait()
        assert checkpoints.folders.steps() == [1]


def test_a_save_that_waits_too_long_for_a_clock_that_jumps_is_one_line(tmp_path):
    with (
        contextlib.closing(Checkpoints(tmp_path)) as checkpoints,
        pytest.raises(MachineError, match="timed out"),
        checkpoints.changing(),
    ):
        raise TimeoutError("timed out after 86400.00 seconds.")


@pytest.mark.parametrize("change", [shutil.rmtree, lambda folder: folder.rename(folder.with_name("renamed"))])
def test_a_folder_that_is_taken_away_ends_in_one_line_and_is_not_made_again(tmp_path, change):
    folder = tmp_path / "checkpoints"
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        checkpoints.save(1, trees_of(8), {"metrics": {}})
        checkpoints.wait()
        change(folder)
        with pytest.raises(MachineError, match=r"checkpoints: .*No such file or directory"):
            checkpoints.save(2, trees_of(8), {"metrics": {}})
    assert not folder.exists()


def test_a_log_that_does_not_get_through_keeps_its_whole_lines(tmp_path):
    path = Workdir(tmp_path).metrics
    log = JsonLines(path, check_metrics_line, first_step=0)
    log.write({"step": 1, "train/loss": 0.5})
    log.sync()
    with files_of_at_most(20), pytest.raises(MachineError, match=r"metrics\.jsonl: .* \(File too large\)"):
        log.write({"step": 2, "train/loss": 0.4})
    log.close()
    JsonLines(path, check_metrics_line, first_step=1).close()
    assert Workdir(tmp_path).read_metrics() == [{"step": 1, "train/loss": 0.5}]


def test_a_json_file_is_whole_or_absent(tmp_path):
    with files_of_at_most(20), pytest.raises(MachineError, match=r"config\.json: cannot be written"):
        write_json(tmp_path / "config.json", {"a long name": "a long value"})
    assert not (tmp_path / "config.json").exists()
