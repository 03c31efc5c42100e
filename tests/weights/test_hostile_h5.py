"""HDF5 files that make the C library loop, crash, take memory or open other files: each is refused in one line."""

import os
import struct
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from bloodcell_jax.errors import DataError
from bloodcell_jax.weights import h5_reader
from bloodcell_jax.weights.files import read_file


@pytest.fixture
def groups(tmp_path):
    """Return the path and the bytes of a file of 20 groups."""
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for i in range(20):
            file[f"g{i}/w"] = np.zeros(3)
    return tmp_path / "w.h5", bytearray((tmp_path / "w.h5").read_bytes())


def refused(path):
    with pytest.raises(DataError) as caught:
        read_file(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: ")
    return line


def heap_whose_free_block_follows_itself(content):
    heap = content.find(b"HEAP")
    _, free, data = struct.unpack_from("<QQQ", content, heap + 8)
    struct.pack_into("<Q", content, data + free, free)


def tree_whose_sibling_is_itself(content):
    tree = content.find(b"TREE")
    struct.pack_into("<QQ", content, tree + 8, tree, tree)


def tree_whose_child_is_itself(content):
    tree = content.find(b"TREE")
    content[tree + 5] = 1  # level
    struct.pack_into("<Q", content, tree + 32, tree)


@pytest.mark.parametrize(
    "damage", [heap_whose_free_block_follows_itself, tree_whose_sibling_is_itself, tree_whose_child_is_itself]
)
def test_a_node_that_points_to_itself_neither_hangs_nor_crashes(groups, damage, monkeypatch):
    monkeypatch.setattr(h5_reader, "_SECONDS", 1)  # of computing, instead of ten
    path, content = groups
    damage(content)
    path.write_bytes(content)
    start = time.monotonic()
    assert "HDF5" in refused(path)
    assert time.monotonic() - start < 30


def test_tensors_that_unpack_to_a_multiple_of_the_file_are_refused(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("w", (2**24,), np.float32, compression="gzip", chunks=(2**20,), fillvalue=0)[:] = 0
    assert (tmp_path / "w.h5").stat().st_size < 2**20
    assert "bomb" in refused(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("w", (2**50,), np.float32)  # never written
    assert "never written" in refused(tmp_path / "w.h5")


def test_an_empty_dataset_is_refused(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["w"] = h5py.Empty("f4")
    assert "w is empty" in refused(tmp_path / "w.h5")


def test_a_link_to_a_pipe_does_not_wait_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["a"] = h5py.ExternalLink(str(tmp_path / "pipe"), "w")
        file["b"] = h5py.SoftLink("/a/w")
        file.attrs["layer_names"] = [b"b"]
    assert refused(tmp_path / "w.h5")


def test_the_reader_can_open_no_other_file(tmp_path):
    program = f"import runpy; child = runpy.run_path({str(h5_reader._CHILD)!r}); child['_forbid_opening'](); open('x')"
    (tmp_path / "x").write_text("secret")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert "Too many open files" in done.stderr


def test_every_way_to_store_a_tensor_gives_its_values(tmp_path):
    rng = np.random.default_rng(0)
    values = {
        "plain": rng.random((3, 4), np.float32),
        "half": rng.random(5).astype(np.float16),
        "double": rng.random(5),
        "big-endian": rng.random(5).astype(">f4"),
        "whole": rng.integers(0, 9, (2, 2)),
        "scalar": np.float32(2.5),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 3), np.float32),
    }
    with h5py.File(tmp_path / "w.h5", "w", userblock_size=512) as file:
        for name, value in values.items():
            file[name] = value
        file.create_dataset("packed", data=values["plain"], compression="gzip", shuffle=True)
        store_bfloat16(file, [0x3FC0, 0xC000])
        file["text"] = "x"
    read = h5_reader.read_h5(tmp_path / "w.h5")
    for name, value in (values | {"packed": values["plain"], "bfloat16": [1.5, -2]}).items():
        np.testing.assert_array_equal(read[name], value)
    assert read["text"].dtype == "V1"
    assert not read["plain"].flags.writeable


def store_bfloat16(file, words):
    """Store numbers of 16 bits as HDF5's own kind of float; h5py reads it as float32."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    stored = h5py.h5d.create(file.id, b"bfloat16", kind, h5py.h5s.create_simple((len(words),)))
    stored.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(words, np.uint16), mtype=kind)
