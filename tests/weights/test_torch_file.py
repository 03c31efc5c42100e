"""PyTorch checkpoints, whole, damaged and hostile, read without PyTorch."""

import argparse
import collections
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest

from bloodcell_jax.errors import DataError
from bloodcell_jax.weights.files import read_file

FORMATS = {"zip": True, "legacy": False}


@pytest.fixture(params=FORMATS)
def save(request, torch, tmp_path):
    """Return a function that saves a value with torch.save, once in each format."""

    def save_to(value):
        path = tmp_path / "weights.pth"
        torch.save(value, path, _use_new_zipfile_serialization=FORMATS[request.param])
        return path

    return save_to


@pytest.fixture
def tensors(torch):
    """Return tensors that are all kinds of windows on a storage: they share, skip and transpose elements."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    return {
        "whole": base,
        "transposed": base.T,
        "window": base[1:3, ::2],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "half": torch.tensor([1.5, -2]).half(),
        "bfloat16": torch.tensor([1.5, -2]).bfloat16(),
        "double": torch.tensor([1.5, -2]).double(),
        "steps": torch.tensor([3, 2**40]),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }


def test_tensors_are_read_as_saved(save, tensors):
    read = read_file(save(tensors)).tensors
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].shape == tuple(tensor.shape)
        np.testing.assert_array_equal(np.asarray(read[name], np.float64), tensor.detach().double().numpy())


def test_dicts_in_a_training_checkpoint_give_the_path_to_each_tensor(save, torch):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    shared = {"w": torch.ones(2)}
    checkpoint = {
        "model": collections.OrderedDict(w=weight),
        "model_ema": collections.OrderedDict(w=torch.full((3,), 2.0)),
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=4e-3, device="cuda", layers=[1, 2]),
        "max_accuracy": np.float64(82.1),
        "epoch": 299,
        "scaler": {},
        "net": shared,
        "again": shared,
    }
    read = read_file(save(checkpoint)).tensors
    assert read.keys() == {"model.w", "model_ema.w", "net.w"}
    np.testing.assert_array_equal(read["model_ema.w"], [2, 2, 2])


def test_two_tensors_with_one_name_are_refused(save, torch):
    with pytest.raises(DataError, match=r"weights\.pth: .*\ba\.b\b"):
        read_file(save({"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}}))


def test_the_marks_in_the_state_dict_of_a_module_are_ignored(save, torch):
    module = torch.nn.Linear(2, 3)
    assert read_file(save(module.state_dict())).tensors.keys() == {"weight", "bias"}


@pytest.mark.parametrize("value", [[1, 2], {"epoch": 3}, {"model": {"epoch": 3}}, 5])
def test_a_file_without_tensors_by_name_is_refused(save, value):
    with pytest.raises(DataError, match=r"weights\.pth: .*no tensors"):
        read_file(save(value))


def test_a_whole_module_is_refused_by_its_class(save, torch):
    with pytest.raises(DataError, match=r"needs torch\.nn\.modules\.linear\.Linear"):
        read_file(save(torch.nn.Linear(2, 3)))


def test_truncated_files_are_refused(save, torch):
    path = save({"w": torch.arange(1000.0)})
    whole = path.read_bytes()
    for length in (1, 10, 100, 500, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"weights\.pth"):
            read_file(path)


def test_damaged_files_end_in_an_error_or_in_tensors(save, torch):
    path = save({"w": torch.arange(8.0), "v": torch.ones(2, 3).T})
    whole, generator = path.read_bytes(), random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 5)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(data)
        try:
            tensors = read_file(path).tensors
        except DataError:
            continue
        for tensor in tensors.values():
            np.array(tensor)


def write_zip(path, pickled, storages=(), *, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for i, storage in enumerate(storages):
            archive.writestr(f"archive/data/{i}", storage)


def one_tensor(claimed, shape=None):
    """Return the pickle of {"w": a tensor on storage 0 of `claimed` floats}."""
    size = claimed if shape is None else shape
    storage = b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    number = pickle.dumps(claimed, 2)[2:-1]
    length = pickle.dumps(size, 2)[2:-1]
    call = b"(" + storage.join([b"(", b""]) + number + b"tQK\x00" + length + b"\x85K\x01\x85tR"
    return b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n" + call + b"s."


def test_an_archive_written_by_hand(tmp_path):
    write_zip(tmp_path / "w.pth", one_tensor(3), [np.arange(3, dtype=np.float32).tobytes()])
    np.testing.assert_array_equal(read_file(tmp_path / "w.pth").tensors["w"], [0, 1, 2])


@pytest.mark.parametrize("claimed", [4, 10**12, 2**62])
def test_a_storage_smaller_than_claimed_is_refused_before_anything_is_allocated(claimed, tmp_path):
    write_zip(tmp_path / "w.pth", one_tensor(claimed), [bytes(12)])
    with pytest.raises(DataError, match=rf"w\.pth: .*\bstorage 0 .*\b{claimed:,} elements .*\b12 bytes"):
        read_file(tmp_path / "w.pth")


def test_a_compressed_archive_is_refused_unread(tmp_path):
    write_zip(tmp_path / "bomb.pth", one_tensor(10), [bytes(10**7)], compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=r"bomb\.pth: .*\barchive/data\.pkl\b.*compressed"):
        read_file(tmp_path / "bomb.pth")


def test_a_pickle_over_the_limit_is_refused_unread(tmp_path):
    write_zip(tmp_path / "w.pth", b"N" * (16 * 2**20 + 1))
    with pytest.raises(DataError, match=r"w\.pth: .*\bdata\.pkl .*\b16,777,217 bytes.*\b16,777,216\b"):
        read_file(tmp_path / "w.pth")


def test_a_storage_past_the_end_of_the_file_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    write_zip(path, one_tensor(3), [bytes(12)])
    data = bytearray(path.read_bytes())
    place = data.rindex(b"archive/data/0") - 46  # Here begins the member's entry in the central directory.
    assert data[place : place + 4] == b"PK\x01\x02"
    struct.pack_into("<II", data, place + 20, 10**9, 10**9)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"w\.pth: .*\barchive/data/0\b.*past the end"):
        read_file(path)


def test_a_legacy_storage_past_the_end_of_the_file_is_refused(torch, tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"w": torch.arange(3.0)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    path.write_bytes(data[:-20] + struct.pack("<q", 2**40) + data[-12:])
    with pytest.raises(DataError, match=r"w\.pth: .*\bstorage \d+ .*past the end"):
        read_file(path)


def test_a_missing_storage_is_refused(tmp_path):
    write_zip(tmp_path / "w.pth", one_tensor(3))
    with pytest.raises(DataError, match=r"w\.pth: .*\barchive/data/0\b"):
        read_file(tmp_path / "w.pth")


def test_a_dict_that_contains_itself_is_refused(tmp_path):
    write_zip(tmp_path / "w.pth", b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.")
    with pytest.raises(DataError, match=r"w\.pth: .*no tensors"):
        read_file(tmp_path / "w.pth")


def test_a_plain_zip_and_a_plain_pickle_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "cells.zip", "w") as archive:
        archive.writestr("a.jpg", b"")
    with pytest.raises(DataError, match=r"without a data\.pkl"):
        read_file(tmp_path / "cells.zip")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"w": [1.0]}))
    with pytest.raises(DataError, match=r"not one of torch\.save"):
        read_file(tmp_path / "plain.pkl")


def test_torchscript_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "scripted.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"scripted/{name}", b"")
    with pytest.raises(DataError, match=r"scripted\.pt: .*TorchScript"):
        read_file(tmp_path / "scripted.pt")


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_hostile_checkpoint_executes_nothing(is_zip, torch, tmp_path):
    marker = tmp_path / "executed"

    class Touch:
        def __reduce__(self):
            import os

            return os.system, (f"touch {marker}",)

    path = tmp_path / "hostile.pth"
    torch.save({"model": {"w": torch.ones(2)}, "args": Touch()}, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(DataError, match=r"needs (posix|os|nt)\.system"):
        read_file(path)
    assert not marker.exists()
