"""MedMNIST by name and by path, with its official splits; downloads are checked."""

import functools
import hashlib
import http.server
import threading

import numpy as np
import pytest

from bloodcell_jax.data import medmnist
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.errors import DataError, UsageError

rng = np.random.default_rng(0)
COUNTS = {"train": 16, "val": 8, "test": 9}


def write(path, shape=(28, 28, 3), **changed):
    arrays = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 8)[:, None].astype(np.uint8)
    arrays |= changed
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return arrays


def test_official_splits_are_kept_in_their_order(tmp_path):
    arrays = write(tmp_path / "bloodmnist.npz")
    data = load_source(f"medmnist:{tmp_path / 'bloodmnist.npz'}", image_size=28)
    assert {name: (i[0], i[-1] + 1) for name, i in data.splits.items()} == {
        "train": (0, 16),
        "val": (16, 24),
        "test": (24, 33),
    }
    for split, indices in data.splits.items():
        np.testing.assert_array_equal(data.images[indices], arrays[f"{split}_images"])
        np.testing.assert_array_equal(data.labels[indices], arrays[f"{split}_labels"][:, 0])
    assert data.class_names == medmnist.BLOOD_CLASSES
    assert data.ids == tuple(map(str, range(33)))


def test_gray_sets_and_other_names(tmp_path):
    arrays = write(tmp_path / "othermnist.npz", (28, 28))
    data = load_source(f"medmnist:{tmp_path / 'othermnist.npz'}", image_size=28)
    assert data.class_names == tuple("01234567")
    np.testing.assert_array_equal(data.images[:16, ..., 1], arrays["train_images"])


def test_a_local_copy_is_taken_and_checked(tmp_path, monkeypatch):
    write(tmp_path / "bloodmnist.npz")
    with pytest.raises(DataError, match="is not the published file"):
        load_source("medmnist:bloodmnist", data_dir=str(tmp_path))
    known = hashlib.md5((tmp_path / "bloodmnist.npz").read_bytes()).hexdigest()
    monkeypatch.setitem(medmnist.MD5, "bloodmnist", known)
    assert len(load_source("medmnist:bloodmnist", image_size=16, data_dir=str(tmp_path))) == 33


def test_a_name_is_downloaded_once_and_checked(tmp_path, monkeypatch):
    (tmp_path / "server").mkdir()
    write(tmp_path / "server" / "bloodmnist_64.npz", (64, 64, 3))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "server")
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setenv("BLOODCELL_JAX_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda _: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(medmnist, "URL", f"http://127.0.0.1:{server.server_port}/{{name}}.npz?download=1")
        with pytest.raises(DataError, match="its md5 does not begin with 2b94928a"):
            load_source("medmnist:bloodmnist_64")
        known = hashlib.md5((tmp_path / "server" / "bloodmnist_64.npz").read_bytes()).hexdigest()
        monkeypatch.setitem(medmnist.MD5, "bloodmnist_64", known)
        first = load_source("medmnist:bloodmnist_64", image_size=32)
        server.shutdown()
        thread.join()
    assert load_source("medmnist:bloodmnist_64", image_size=32).sha256() == first.sha256()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["bloodmnist_64.npz"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"val_labels": None}, "no key val_labels"),
        ({"val_labels": np.zeros((8, 3), np.uint8)}, r"labels have shape \[8, 3\]"),
        ({"val_labels": np.full((8, 1), 10**6)}, "labels span 1000000 to 1000000, out of range"),
        ({"test_images": np.full((9, 28, 28, 3), 7.0)}, "float images span 7 to 7"),
        ({"test_images": np.zeros((9, 28, 28, 28), np.uint8)}, r"images have shape \[9, 28, 28, 28\]"),
        ({"test_images": np.zeros((8, 28, 28, 3), np.uint8)}, "8 images but 9 labels"),
    ],
)
def test_what_is_no_such_file_says_so(tmp_path, changed, words):
    write(tmp_path / "a.npz", **changed)
    with pytest.raises(DataError, match=words):
        load_source(f"medmnist:{tmp_path / 'a.npz'}")


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match="there are bloodmnist, bloodmnist_64, bloodmnist_128, bloodmnist_224"):
        load_source("medmnist:bloodmnist_96")
