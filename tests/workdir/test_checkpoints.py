"""A checkpoint that is not what was written is named and not used; a whole one is never lost."""

import contextlib
import shutil
import subprocess

import jax
import numpy as np
import pytest

from bloodcell_jax.config import OptimizerConfig
from bloodcell_jax.errors import DataError
from bloodcell_jax.train.optimizers import create_optimizer
from bloodcell_jax.workdir.checkpoint_folders import CheckpointFolders, Ranking
from bloodcell_jax.workdir.checkpoints import Checkpoints
from bloodcell_jax.workdir.resume import step_to_resume

RANKING = Ranking("val/f1_macro", higher_is_better=True)
DEVICE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def trees_of(step):
    return {
        "params": {"kernel": np.full((3, 5), step, np.float32)},
        "optimizer": {"mu": np.full((3, 5), -step, np.float32)},
    }


SHAPES = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=DEVICE), trees_of(0))


def save(checkpoints, step, f1=None):
    checkpoints.save(step, trees_of(step), {"metrics": {} if f1 is None else {"val/f1_macro": f1}})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a folder with checkpoints of the steps 4, 8 and 12, the best of which is 8."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        for step, f1 in ((4, 0.5), (8, 0.9), (12, 0.7)):
            save(checkpoints, step, f1)
    return folder


@pytest.fixture
def folders(saved, tmp_path):
    return CheckpointFolders(shutil.copytree(saved, tmp_path / "checkpoints"))


def usable(folders):
    return list(CheckpointFolders(folders.directory).usable([12, 8, 4]))


def test_a_copied_state_is_saved_without_a_program_for_each_device(tmp_path, caplog):
    sharding = jax.sharding.NamedSharding(jax.make_mesh((8,), ("data",)), jax.sharding.PartitionSpec())
    kernel = jax.device_put(np.arange(16 * 3, dtype=np.float32).reshape(16, 3), sharding)
    with contextlib.closing(Checkpoints(tmp_path / "checkpoints")) as checkpoints:
        with jax.log_compiles():
            checkpoints.save(1, {"params": {"kernel": kernel}}, {"metrics": {}})
            checkpoints.wait()
        like = {"kernel": jax.ShapeDtypeStruct(kernel.shape, kernel.dtype, sharding=sharding)}
        restored = checkpoints.restore(1, {"params": like})["params"]["kernel"]
    np.testing.assert_array_equal(restored, kernel)
    assert restored.sharding == sharding
    assert "XLA compilation" not in caplog.text


def test_an_optimizer_of_several_parts_is_restored(tmp_path):
    optimizer = create_optimizer(OptimizerConfig(name="muon", weight_decay=0.1), lambda step: 1e-3)
    params = {"stage_0/kernel": np.ones((3, 5), np.float32), "stage_0/bias": np.ones(5, np.float32)}
    state = optimizer.update(params, optimizer.init(params), params)[1]
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=DEVICE), state)
    with contextlib.closing(Checkpoints(tmp_path / "checkpoints")) as checkpoints:
        checkpoints.save(1, {"optimizer": state}, {"metrics": {}})
        checkpoints.wait()
        restored = checkpoints.restore(1, {"optimizer": like})["optimizer"]
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_a_state_of_other_parts_is_refused_and_both_are_shown(tmp_path):
    """Muon took fewer kernels once: a run of such a version cannot go on."""
    before, now = ({part: {"mu": {"kernel": np.ones((3, 5), np.float32)}}} for part in ("rest", "matrix"))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=DEVICE), now)
    with contextlib.closing(Checkpoints(tmp_path / "checkpoints")) as checkpoints:
        checkpoints.save(1, {"optimizer": before}, {"metrics": {}})
        checkpoints.wait()
        with pytest.raises(DataError, match=r"version .*--overwrite.* -\S*matrix/mu/kernel .*\+\S*rest/mu/kernel"):
            checkpoints.restore(1, {"optimizer": like})


def test_checksums_are_those_of_sha256sum(saved):
    check = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=saved / "12", capture_output=True)
    assert check.returncode == 0, check.stderr
    names = {path.relative_to(saved / "12").as_posix() for path in (saved / "12").rglob("*") if path.is_file()}
    assert len(check.stdout.splitlines()) == len(names - {"SHA256SUMS"})


def test_a_flipped_bit_in_any_byte_of_any_file_is_found(folders, caplog):
    rng = np.random.default_rng(0)
    for path in sorted(path for path in folders.of_step(12).rglob("*") if path.is_file()):
        content = path.read_bytes()
        for position in {0, len(content) - 1, *rng.integers(0, len(content), 6).tolist()}:
            damaged = bytearray(content)
            damaged[position] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            assert usable(folders) == [8, 4], (path, position)
        path.write_bytes(content)
    assert usable(folders) == [12, 8, 4]
    assert any("12: damaged" in message and "params/d/" in message for message in caplog.messages)


@pytest.mark.parametrize("name", ["params/_METADATA", "record/metadata", "SHA256SUMS", "_CHECKPOINT_METADATA"])
@pytest.mark.parametrize("damage", ["deleted", "empty", "half", "zeros"])
def test_a_file_that_is_cut_or_gone_is_found(folders, name, damage):
    path = folders.of_step(12) / name
    content = path.read_bytes()
    path.write_bytes({"half": content[: len(content) // 2], "zeros": bytes(len(content))}.get(damage, b""))
    if damage == "deleted":
        path.unlink()
    # Without its checksums it comes last.
    assert usable(folders) == ([8, 4, 12] if (name, damage) == ("SHA256SUMS", "deleted") else [8, 4])


def test_a_file_of_another_checkpoint_is_found(folders):
    shutil.rmtree(folders.of_step(12))
    shutil.copytree(folders.of_step(8), folders.of_step(12))
    assert usable(folders) == [8, 4]
    (folders.of_step(4) / "params" / "d" / "more").write_bytes(b"x")
    (folders.of_step(8) / ".nfs0001").write_bytes(b"a file system's own")
    assert usable(folders) == [8]


def test_checkpoints_without_checksums_are_a_last_resort(folders, caplog):
    for step in (12, 8):
        (folders.of_step(step) / "SHA256SUMS").unlink()
    assert usable(folders) == [4, 12, 8]
    assert "12: has no checksums" in caplog.text
    shutil.rmtree(folders.of_step(4))
    shutil.rmtree(folders.of_step(12) / "record")  # as a kill of an earlier version left it
    assert step_to_resume(CheckpointFolders(folders.directory), 36) == 8


def test_a_damaged_one_is_set_aside_and_made_again(folders):
    (folders.of_step(12) / "params" / "_METADATA").write_bytes(b"")
    assert step_to_resume(folders, 36) == 8
    assert folders.steps() == [4, 8]
    assert (folders.directory / "12.damaged").is_dir()
    with contextlib.closing(Checkpoints(folders.directory)) as checkpoints:
        save(checkpoints, 12)
        checkpoints.wait()
        assert usable(folders) == [12, 8, 4]
        restored = checkpoints.restore(12, SHAPES)
    np.testing.assert_array_equal(restored["params"]["kernel"], trees_of(12)["params"]["kernel"])


def test_no_whole_checkpoint_is_an_error_that_names_them(folders):
    for step in (4, 8, 12):
        (folders.of_step(step) / "params" / "_METADATA").write_bytes(b"")
    with pytest.raises(DataError, match=r"4, 8, 12"):
        step_to_resume(folders, 36)
    assert folders.steps() == [4, 8, 12]


def test_folders_of_others_are_no_checkpoints(folders):
    for name in ("99999", "2024", "2024-01-backup", "12-copy", "008"):
        (folders.directory / name).mkdir()
        (folders.directory / name / "notes.txt").write_text("mine")
    (folders.directory / "16").symlink_to(folders.of_step(12))
    assert folders.steps() == [4, 8, 12]
    assert step_to_resume(folders, 36) == 12
    # A checkpoint past the end of the run is none of this run.
    shutil.copytree(folders.of_step(12), folders.directory / "88888")
    assert step_to_resume(folders, 36) == 12


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        ({"keep_last": 1, "keep_best": 0}, [12]),
        ({"keep_last": 1, "keep_best": 1}, [8, 12]),
        ({"keep_last": 1, "keep_best": 2}, [8, 12]),
        ({"keep_last": 1, "keep_best": 0, "keep_every": 4}, [4, 8, 12]),
        ({"keep_last": 2, "keep_best": 0, "keep_every": 100}, [8, 12]),
    ],
)
def test_retention(folders, keep, left):
    folders.prune(**{"keep_every": 0} | keep, ranking=RANKING)
    assert folders.steps() == left


def test_retention_keeps_the_latest_that_has_checksums(folders):
    (folders.of_step(12) / "SHA256SUMS").unlink()
    folders.prune(keep_last=1, keep_best=0, keep_every=0, ranking=RANKING)
    assert folders.steps() == [8, 12]


def test_an_unreadable_record_does_not_stop_pruning(folders):
    (folders.of_step(8) / "record" / "metadata").unlink()
    folders.prune(keep_last=1, keep_best=1, keep_every=0, ranking=RANKING)
    assert folders.steps() == [12]


def test_a_checkpoint_is_replaced_by_another_of_its_step(folders):
    with contextlib.closing(Checkpoints(folders.directory)) as checkpoints:
        checkpoints.save(12, trees_of(13), {"metrics": {"val/f1_macro": 1.0}})
        checkpoints.wait()
        assert checkpoints.folders.best(RANKING) == [12, 8, 4]
        restored = checkpoints.restore(12, SHAPES)
    assert restored["params"]["kernel"][0, 0] == 13
    assert sorted(path.name for path in folders.directory.iterdir()) == ["12", "4", "8"]
