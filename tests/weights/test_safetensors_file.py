"""safetensors files: the same as those of the reference implementation; damaged ones are refused."""

import json
import os
import random
import stat
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bloodcell_jax.errors import DataError, MachineError
from bloodcell_jax.weights.info import WeightsInfo
from bloodcell_jax.weights.safetensors_file import read_safetensors, stored_info, write_safetensors

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.ones((), np.float64),
    "c": np.zeros((0, 3), np.float16),
    "d": np.array([1.5, -2], jnp.bfloat16),
    "e": np.array([2**40]),
}


def test_files_of_the_reference_implementation_are_read(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors", {"format": "pt"})
    tensors, metadata = read_safetensors(tmp_path / "a.safetensors")
    assert metadata == {"format": "pt"}
    assert stored_info(tmp_path, metadata) is None
    for name, array in TENSORS.items():
        assert tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(tensors[name], array)


def test_the_reference_implementation_reads_ours(tmp_path):
    info = WeightsInfo("convnext_atto", 8, class_names=("a", "b"))
    write_safetensors(tmp_path / "a.safetensors", TENSORS, info)
    for name, array in load_file(tmp_path / "a.safetensors").items():
        np.testing.assert_array_equal(array, TENSORS[name])
    assert stored_info(tmp_path, read_safetensors(tmp_path / "a.safetensors")[1]) == info
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_umask_says_who_may_read(tmp_path):
    for umask, mode in ((0o022, 0o644), (0o027, 0o640), (0o077, 0o600)):
        before = os.umask(umask)
        try:
            write_safetensors(tmp_path / "a.safetensors", TENSORS, WeightsInfo("convnext_atto", 8))
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == mode


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "nowhere").touch()
    with pytest.raises(MachineError, match=r"nowhere\S*a\.safetensors: "):
        write_safetensors(tmp_path / "nowhere" / "a.safetensors", TENSORS, WeightsInfo("convnext_atto", 8))


def write(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def entry(**changes):
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"[]",
        b'{"__metadata__": 3}',
        b"{" + b'"a":[' * 100_000,
        {"w": 3},
        {"w": {"dtype": "F32", "shape": [2]}},
        entry(dtype="F8_E5M2"),
        entry(shape=[3]),
        entry(shape=[-2]),
        entry(shape=[2.0]),
        entry(shape=2),
        entry(shape=["2"]),
        entry(data_offsets=[0, 16], shape=[4]),
        entry(data_offsets=[8, 0]),
        entry(data_offsets=[-8, 0]),
        entry(shape=[2**62, 4], data_offsets=[0, 2**66]),
        entry(color="red"),
    ],
)
def test_inconsistent_headers_are_refused(header, tmp_path):
    write(tmp_path / "w.safetensors", header, bytes(8))
    with pytest.raises(DataError, match=r"w\.safetensors"):
        read_safetensors(tmp_path / "w.safetensors")


def test_damaged_files_end_in_an_error_or_in_tensors(tmp_path):
    path = tmp_path / "w.safetensors"
    write_safetensors(path, TENSORS, WeightsInfo("convnext_atto", 8))
    whole, generator = path.read_bytes(), random.Random(0)
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 5)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(data[: generator.randint(9, len(data))])
        try:
            tensors, metadata = read_safetensors(path)
            stored_info(path, metadata)
        except DataError:
            continue
        assert all(tensor.nbytes <= len(whole) for tensor in tensors.values())
