"""HDF5 files with long lists of names, damaged ones, and ones that point to other files."""

import h5py
import numpy as np
import pytest

from bloodcell_jax.errors import DataError
from bloodcell_jax.weights.files import read_file


def test_long_lists_of_layers_are_read_from_several_attributes(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names0"], file.attrs["layer_names1"] = [b"a"], [b"b"]
        for layer in "ab":
            file[f"{layer}/{layer}/kernel:0"] = np.zeros(2)
            file[layer].attrs["weight_names"] = [f"{layer}/kernel:0".encode()]
    assert read_file(tmp_path / "w.h5").tensors.keys() == {"a[0]/a/kernel:0", "b[0]/b/kernel:0"}


def test_a_truncated_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["w"] = np.zeros(10_000)
    data = (tmp_path / "whole.h5").read_bytes()
    for length in (60, 1000, len(data) - 100):
        (tmp_path / "part.h5").write_bytes(data[:length])
        with pytest.raises(DataError, match=r"part\.h5: .*HDF5"):
            read_file(tmp_path / "part.h5")


def elsewhere_by_link(file, folder):
    file["w/w"] = h5py.ExternalLink(folder / "secret.h5", "w")


def elsewhere_by_storage(file, folder):
    (folder / "secret").write_bytes(bytes(16))
    file.create_dataset("w/w", (2,), np.float64, external=[(str(folder / "secret"), 0, 16)])


def elsewhere_by_virtual_dataset(file, folder):
    layout = h5py.VirtualLayout((2,), np.float64)
    layout[:] = h5py.VirtualSource(folder / "secret.h5", "w", (2,))
    file.create_virtual_dataset("w/w", layout)


@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize("link", [elsewhere_by_link, elsewhere_by_storage, elsewhere_by_virtual_dataset])
def test_tensors_in_other_files_are_refused(link, is_listed, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["w"] = np.zeros(2)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["v"] = np.zeros(2)
        link(file, tmp_path)
        if is_listed:
            file.attrs["layer_names"], file["w"].attrs["weight_names"] = [b"w"], [b"w"]
    if link is elsewhere_by_link and not is_listed:  # A link that no list names is not followed.
        assert read_file(tmp_path / "w.h5").tensors.keys() == {"v"}
        return
    with pytest.raises(DataError, match=r"w\.h5: .*\bw\b.* in another file"):
        read_file(tmp_path / "w.h5")
