"""Weights from anywhere: numbers, depths and counts that no network has are refused in one line, at once."""

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bloodcell_jax.errors import DataError, UserError
from bloodcell_jax.models import create_model
from bloodcell_jax.weights import load_weights, pickle_reader, read_weights_info
from bloodcell_jax.weights.files import read_file
from bloodcell_jax.weights.model_file import RUN_KEY, read_model_record
from bloodcell_jax.weights.safetensors_file import INFO_KEY, MAX_HEADER_BYTES

DEEP = "[" * 100_000 + "]" * 100_000


def refused(read, path, *words):
    with pytest.raises(UserError) as caught:
        read(path)
    (line,) = str(caught.value).splitlines()
    assert len(line) < 2000
    for word in words:
        assert word in line


def safetensors_of(path, header, data=bytes(8)):
    text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape=(2,), dtype="F32", offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HEADERS = {
    "digits": {"w": entry([10**3999])},
    "digits in offsets": {"w": entry(offsets=(0, 10**3999))},
    "many long axes": {"w": entry([2**62] * 10_000)},
    "many axes of one": {"w": entry([1] * 100 + [2])},
    "negative": {"w": entry([-2, -1])},
    "three offsets": {"w": entry(offsets=(0, 8, 8))},
    "no offsets": {"w": {"dtype": "F32", "shape": [2]}},
    "a fraction": {"w": entry([2.0])},
    "another type": {"w": entry(dtype="F8_E9M9" * 100)},
    "a list as type": {"w": entry(dtype=[])},
    "no table": {"w": 3},
    "deep": '{"w": ' + DEEP + "}",
    "a name of two lines": {"w\nbloodcell: all is well": entry()},
    "a long name": {"w" * 100_000: entry()},
    "a name of many parts": {"/" * 400: entry()},
    "many tensors": dict.fromkeys(map(str, range(100_001)), entry([0], offsets=(0, 0))),
    "metadata of numbers": {"w": entry(), "__metadata__": {"a": 3}},
    "metadata of lists": {"w": entry(), "__metadata__": []},
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_of_safetensors(case, tmp_path):
    refused(read_file, safetensors_of(tmp_path / "w.safetensors", HEADERS[case]), "w.safetensors: ")


def test_a_header_above_the_limit(tmp_path):
    path = safetensors_of(tmp_path / "w.safetensors", "{" + " " * MAX_HEADER_BYTES + "}")
    refused(read_file, path, f"{MAX_HEADER_BYTES:,}")


@pytest.mark.parametrize(
    "info",
    [
        DEEP,
        "3",
        '{"variant": 5, "num_classes": 2}',
        '{"variant": "convnext_tiny", "num_classes": "two"}',
        '{"variant": "convnext_tiny", "num_classes": -1}',
        '{"variant": "convnext_tiny", "num_classes": 2, "mean": [0.5]}',
        '{"variant": "convnext_tiny", "num_classes": 2, "std": [0.5, NaN, 1]}',
        '{"variant": "convnext_tiny", "num_classes": 2, "class_names": "ab"}',
        '{"variant": "convnext_tiny", "num_classes": 2, "class_names": ["a", ["b"]]}',
        '{"variant": "convnext_tiny", "num_classes": 2, "licence": "a\\nb"}',
    ],
)
def test_facts_of_another_kind(info, tmp_path):
    path = safetensors_of(tmp_path / "w.safetensors", {"w": entry(), "__metadata__": {INFO_KEY: info}})
    refused(read_weights_info, path, INFO_KEY)


@pytest.mark.parametrize(
    "record",
    [
        DEEP,
        "[]",
        '{"config": ' + DEEP + "}",
        '{"config": {}, "step": "1", "metrics": {}, "version": "1"}',
        '{"config": {}, "step": 1, "metrics": [1], "version": "1"}',
        '{"config": {}, "step": 1, "metrics": {}, "version": 2}',
        '{"config": {}, "step": 1, "metrics": {}, "version": "1", "view": {"side": 0}}',
    ],
)
def test_a_record_of_another_kind(record, tmp_path):
    path = safetensors_of(tmp_path / "m.safetensors", {"w": entry(), "__metadata__": {RUN_KEY: record}})
    refused(read_model_record, path, RUN_KEY)


def torch_zip(path, pickled, elements=4):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", pickled)
        archive.writestr("w/data/0", np.arange(elements, dtype=np.float32).tobytes())
    return path


def tensor_pickle(size, stride, elements=4):
    """Return the pickle of {"w": tensor}, as torch.save writes it."""

    def number(value):
        return pickle.dumps(value, protocol=2)[2:-1]

    storage = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpu" + number(elements) + b"tQ"
    shape = b"(" + b"".join(map(number, size)) + b"t"
    strides = b"(" + b"".join(map(number, stride)) + b"t"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(0) + shape + strides + b"\x89}tR"
    return b"\x80\2}X\1\0\0\0w" + call + b"s."


def test_a_stride_that_no_array_has_is_read_where_it_means_nothing(tmp_path):
    assert read_file(torch_zip(tmp_path / "w.pth", tensor_pickle((4,), (1,)))).tensors["w"].tolist() == [0, 1, 2, 3]
    tensor = read_file(torch_zip(tmp_path / "w.pth", tensor_pickle((1, 4), (2**62, 1)))).tensors["w"]
    assert tensor.tolist() == [[0, 1, 2, 3]]
    assert read_file(torch_zip(tmp_path / "w.pth", tensor_pickle((0, 4), (2**62, 2**62)))).tensors["w"].shape == (0, 4)
    refused(read_file, torch_zip(tmp_path / "w.pth", tensor_pickle((2,), (2**62,))), "w.pth: ", "past the end")
    refused(read_file, torch_zip(tmp_path / "w.pth", tensor_pickle((0, 2**62), (1, 1))), "w.pth: ")


def test_a_pickle_of_braces_takes_no_gigabyte(tmp_path):
    path = torch_zip(tmp_path / "w.pth", b"\x80\2" + b"}" * (2**24 - 10) + b".")
    refused(read_file, path, f"{pickle_reader.MAX_OPCODES:,}")


def test_many_calls_with_long_shapes_end_at_once(tmp_path):
    long = b"(" + b"K\1" * 200_000 + b"tq\0"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0K\0K\1tQ"
    content = b"\x80\2" + long + (call + b"K\0h\0h\0tR") * 20_000 + b"."
    refused(read_file, torch_zip(tmp_path / "w.pth", content), "malformed tensor")


@pytest.mark.parametrize("flags", [0x800, 0])
def test_an_archive_with_names_that_are_no_text(flags, tmp_path):
    path = torch_zip(tmp_path / "w.pth", tensor_pickle((4,), (1,)))
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    struct.pack_into("<H", content, at + 8, flags)
    content[at + 46] = 0xFF
    path.write_bytes(content)
    refused(read_file, path, "w.pth: ")


def load(path):
    return load_weights(path, create_model("test_convnext", 3))


@pytest.mark.parametrize("read", [read_file, read_weights_info, read_model_record, load])
def test_only_regular_files_are_opened(read, tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    refused(read, tmp_path / "pipe.pth", "pipe.pth: a pipe")
    refused(read, Path("/dev/zero"), "/dev/zero: a device")
    refused(read, tmp_path / ("x" * 300), "x" * 300)


def test_a_workdir_whose_model_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="a pipe"):
        read_weights_info(tmp_path)
