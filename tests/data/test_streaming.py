"""Streamed images are those of the plan, from any batch on; only the wanted ones are read; no worker is left."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from bloodcell_jax.data.example_index import ExampleIndex, Names
from bloodcell_jax.data.launch_cache import cached_sha256
from bloodcell_jax.data.sampling import create_sampler
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.data.streaming import open_stream
from bloodcell_jax.data.tfds_sets import INDEX_NAME, prepare
from bloodcell_jax.errors import DataError, MachineError
from bloodcell_jax.run.inputs import StreamPlan


@pytest.fixture(scope="module")
def prepared(cells, tmp_path_factory):
    """Return the folder of a prepared dataset of 120 images, and the dataset in memory."""
    folder = tmp_path_factory.mktemp("sets")
    data = load_source(f"npz:{cells}", image_size=32)
    prepare(data, folder, "cells")
    return folder, data


def stored(folder, **options):
    return load_source(
        "tfds:blood_cells/cells", data_dir=str(folder), in_memory=False, **({"image_size": 32} | options)
    )


def plan_of(data, rows=slice(0, 16), steps=12):
    sampler = create_sampler("natural", data.labels, np.arange(len(data), dtype=np.int32), seed=5)
    return StreamPlan(sampler, 16, rows, np.arange(steps))


def test_images_on_the_disk_stand_in_for_the_array(prepared):
    folder, data = prepared
    images = stored(folder).images
    assert (images.shape, images.dtype, images.nbytes, len(images)) == (data.images.shape, np.uint8, 120 * 3072, 120)
    mask = data.labels == 1
    for index in (7, np.int32(7), np.array([5, 119, 5, 0]), slice(3, 9), slice(100, 300), mask, np.array([], int)):
        np.testing.assert_array_equal(images[index], data.images[index])
    np.testing.assert_array_equal(np.stack(list(images)), data.images)
    left = images.select(mask)
    np.testing.assert_array_equal(left[[0, 39]], data.images[mask][[0, 39]])
    np.testing.assert_array_equal(left.select(np.array([3]))[0], data.images[mask][3])
    assert len({images.key, left.key, stored(folder, image_size=16).images.key}) == 3
    assert len(pickle.dumps(images)) < 20_000


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_follows_the_plan_from_any_batch_on_for_the_rows_of_one_process(prepared, workers):
    folder, data = prepared
    plan = plan_of(data, rows=slice(4, 12))
    with open_stream(stored(folder).images, plan, workers=workers, start=5, place=lambda *batch: batch) as batches:
        numbers, images = zip(*batches, strict=True)
    # 120 images are 7.5 batches, so that an epoch ends inside.
    assert numbers == tuple(range(5, 12))
    for number, batch in zip(numbers, images, strict=True):
        whole = plan_of(data)[number]
        np.testing.assert_array_equal(batch, data.images[whole[4:12]])
    with open_stream(data.images, plan, workers=workers, start=11) as batches:
        np.testing.assert_array_equal(next(batches), images[-1])


def test_opening_reads_only_the_index_and_no_image(prepared, tmp_path):
    import shutil

    folder, data = prepared
    shutil.copytree(folder, tmp_path / "sets")
    (index,) = tmp_path.rglob(INDEX_NAME)
    (shard,) = tmp_path.rglob("*.array_record*")
    records = shard.read_bytes()
    # Every record is destroyed, but not the directory of records at the end of the file.
    shard.write_bytes(records[:64] + bytes(len(records) // 2) + records[64 + len(records) // 2 :])
    found = stored(tmp_path / "sets")
    np.testing.assert_array_equal(found.labels, data.labels)
    assert tuple(found.ids) == data.ids
    assert cached_sha256(found) == data.sha256()
    with (
        pytest.raises(DataError, match=r"^tfds:blood_cells/cells: .*damaged"),
        open_stream(found.images, plan_of(data), workers=1) as batches,
    ):
        list(batches)
    shard.write_bytes(records)
    index.unlink()
    read = stored(tmp_path / "sets")
    np.testing.assert_array_equal(read.labels, data.labels)
    assert tuple(read.ids) == data.ids


def test_an_unknown_hash_is_computed_once(prepared, caplog):
    folder, data = prepared
    expected = load_source("tfds:blood_cells/cells", image_size=16, data_dir=str(folder)).sha256()
    with caplog.at_level("INFO", "bloodcell_jax"):
        assert cached_sha256(stored(folder, image_size=16)) == expected
        assert cached_sha256(stored(folder, image_size=16)) == expected
    assert sum("hashing 120 images" in record.message for record in caplog.records) <= 1
    names = data.class_names[::-1]
    other = replace(stored(folder, image_size=16), labels=data.labels[::-1].copy(), class_names=names)
    assert cached_sha256(other) == other.sha256() != expected
    kept = data.labels != 2
    assert cached_sha256(stored(folder).select(kept)) == data.select(kept).sha256()
    assert stored(folder).select(kept).ids == data.select(kept).ids


def test_an_index_is_read_whole_or_not_at_all(tmp_path):
    names = ("", "ä/血.png", "z" * 300)
    index = ExampleIndex(np.arange(3, dtype=np.int32), Names.of(names))
    index.save(tmp_path / "a" / "index.npz")
    assert tuple(ExampleIndex.load(tmp_path / "a" / "index.npz", 3).ids) == names
    assert ExampleIndex.load(tmp_path / "a" / "index.npz", 4) is None
    content = (tmp_path / "a" / "index.npz").read_bytes()
    (tmp_path / "a" / "index.npz").write_bytes(content[: len(content) // 2])
    assert ExampleIndex.load(tmp_path / "a" / "index.npz", 3) is None


def workers_of(pid):
    return [child for child in psutil.Process(pid).children() if "spawn_main" in " ".join(child.cmdline())]


def test_a_killed_worker_is_one_line_and_none_is_left(prepared):
    folder, data = prepared
    with open_stream(stored(folder).images, plan_of(data, steps=100_000), workers=2) as batches:
        next(batches)
        workers_of(os.getpid())[0].kill()
        with pytest.raises(MachineError, match=r"data\.workers: .*exit code -9\b.*/dev/shm"):
            list(batches)
    assert workers_of(os.getpid()) == []


PARENT = """
    import os, sys, time
    import numpy as np
    from bloodcell_jax.data.sources import load_source
    from bloodcell_jax.data.streaming import open_stream

    class Plan:
        def __len__(self):
            return 100_000

        def __getitem__(self, step):
            return np.full(16, step % 120)

    if __name__ == "__main__":
        images = load_source("tfds:blood_cells/cells", image_size=32, data_dir=sys.argv[1], in_memory=False).images
        with open_stream(images, Plan(), workers=2) as batches:
            for number, _ in enumerate(batches):
                print(number, flush=True)
                time.sleep(0.02)
"""


def test_workers_outlive_signals_to_the_whole_group_but_not_their_parent(prepared, tmp_path):
    folder, _ = prepared
    (tmp_path / "parent.py").write_text(textwrap.dedent(PARENT))
    parent = subprocess.Popen(
        [sys.executable, "parent.py", folder],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(5):
        parent.stdout.readline()
    workers = workers_of(parent.pid)
    assert len(workers) == 2
    for worker in workers:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            worker.send_signal(number)
    # This is more than was ready.
    for _ in range(30):
        parent.stdout.readline()
    assert all(worker.is_running() for worker in workers)
    parent.kill()
    _, errors = parent.communicate()
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="only root on Linux may mount a small /dev/shm",
)
def test_full_shared_memory_is_one_line(tmp_path):
    program = """
import numpy as np
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.data.streaming import open_stream
from bloodcell_jax.data.tfds_sets import prepare
from bloodcell_jax.errors import MachineError

if __name__ == "__main__":
    prepare(load_source("synthetic:24", image_size=16), {folder!r}, "cells")
    data = load_source("tfds:blood_cells/cells", image_size=16, data_dir={folder!r}, in_memory=False)
    try:
        with open_stream(data.images, [np.arange(4)] * 3, workers=2) as batches:
            next(batches)
    except MachineError as error:
        print(error)
"""
    (tmp_path / "stream.py").write_text(program.format(folder=str(tmp_path)))
    small = f"mount -t tmpfs -o size=64k tmpfs /dev/shm && exec {sys.executable} {tmp_path / 'stream.py'}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", small],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    if "permission denied" in done.stderr.lower() or "not permitted" in done.stderr.lower():
        pytest.skip("mounting is not allowed here")
    assert "data.workers" in done.stdout, done.stderr
    assert "/dev/shm" in done.stdout
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
