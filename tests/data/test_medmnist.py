"""MedMNIST by name and by path, with its official splits; downloads are checked."""

import functools
import hashlib
import http.server
import threading

import numpy as np
import pytest

from bloodcell_jax.data import medmnist
from bloodcell_jax.data.sources import knows_names, load_source
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


def test_which_sets_have_known_names():
    assert knows_names("medmnist:bloodmnist_64")
    assert knows_names("medmnist:/data/bloodmnist.npz")
    assert not knows_names("medmnist:/data/othermnist.npz")
    assert not knows_names("npz:bloodmnist.npz")
    assert knows_names("synthetic:24")


def test_a_local_copy_is_taken_and_checked(tmp_path, monkeypatch):
    write(tmp_path / "bloodmnist.npz")
    with pytest.raises(DataError, match=r"medmnist:bloodmnist: \S*bloodmnist\.npz .*not the published .*md5"):
        load_source("medmnist:bloodmnist", data_dir=str(tmp_path))
    md5 = hashlib.md5((tmp_path / "bloodmnist.npz").read_bytes()).hexdigest()
    monkeypatch.setitem(medmnist.PUBLISHED_MD5, "bloodmnist", md5)
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
        with pytest.raises(DataError, match=r"medmnist:bloodmnist_64: .*\bmd5 .*\b2b94928a\b"):
            load_source("medmnist:bloodmnist_64")
        md5 = hashlib.md5((tmp_path / "server" / "bloodmnist_64.npz").read_bytes()).hexdigest()
        monkeypatch.setitem(medmnist.PUBLISHED_MD5, "bloodmnist_64", md5)
        first = load_source("medmnist:bloodmnist_64", image_size=32)
        server.shutdown()
        thread.join()
    assert load_source("medmnist:bloodmnist_64", image_size=32).sha256() == first.sha256()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["bloodmnist_64.npz"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"val_labels": None}, r"key val_labels\b"),
        ({"val_labels": np.zeros((8, 3), np.uint8)}, r"labels .*\[8, 3\]"),
        ({"val_labels": np.full((8, 1), 10**6)}, r"labels .*\b1000000 to 1000000, out of range"),
        ({"test_images": np.full((9, 28, 28, 3), 7.0)}, r"float test_images .*\b7 to 7\b"),
        ({"test_images": np.zeros((9, 28, 28, 28), np.uint8)}, r"images .*\[9, 28, 28, 28\]"),
        ({"test_images": rng.integers(0, 256, (8, 28, 28, 3), np.uint8)}, r"\b8 images .*\b9 labels"),
        ({"val_images": np.ones((8, 28, 28, 3), np.uint8)}, r"val_images .*\b1 of 255"),
        (
            {"val_images": np.ones((8, 3, 28, 28), np.uint8)},
            r"val_images .*\[8, 3, 28, 28\].*moveaxis\(",
        ),
    ],
)
def test_a_file_that_is_not_medmnist_says_why(tmp_path, changed, words):
    write(tmp_path / "a.npz", **changed)
    with pytest.raises(DataError, match=rf"medmnist:\S*a\.npz: .*{words}"):
        load_source(f"medmnist:{tmp_path / 'a.npz'}")


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(
        UsageError, match=r"bloodmnist_96: .*\bbloodmnist, bloodmnist_64, bloodmnist_128, bloodmnist_224"
    ):
        load_source("medmnist:bloodmnist_96")
