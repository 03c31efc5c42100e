"""Sources read images, labels, class names, ids and splits as documented, and the table of kinds describes them."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.geometry import PUBLISHED_CROP, PUBLISHED_SIDE
from bloodcell_jax.data.image_files import resize_arrays
from bloodcell_jax.data.sources import SOURCES, SourceKind, load_source, source_help
from bloodcell_jax.data.synthetic import load_synthetic
from bloodcell_jax.errors import DataError, UsageError

rng = np.random.default_rng(0)
ARRAYS = rng.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(9) % 3


def write_image(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def zip_of(folder, path, prefix=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


@pytest.mark.parametrize("shape", [(9,), (9, 1)])
@pytest.mark.parametrize("as_floats", [False, True])
def test_npz(tmp_path, shape, as_floats):
    images = ARRAYS.astype(np.float32) / 255 if as_floats else ARRAYS
    np.savez(tmp_path / "cells.npz", images=images, labels=LABELS.reshape(shape).astype(np.uint8))
    data = load_source(f"npz:{tmp_path / 'cells.npz'}", image_size=32)
    np.testing.assert_array_equal(data.images, ARRAYS)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert (data.images.dtype, data.labels.dtype) == (np.uint8, np.int32)
    assert data.class_names == ("0", "1", "2")
    assert data.ids == tuple("012345678")
    assert data.splits == {}
    # A bare path is recognized, and the same data have the same hash in any place.
    assert load_source(str(tmp_path / "cells.npz"), image_size=32).sha256() == data.sha256()


def test_arrays_are_resized_and_never_cropped(tmp_path):
    large = rng.integers(0, 256, (6, 300, 240, 3), dtype=np.uint8)
    np.savez(tmp_path / "cells.npz", images=large, labels=np.arange(6) % 2)
    data = load_source(f"npz:{tmp_path / 'cells.npz'}", image_size=96, crop=200)
    expected = Image.fromarray(large[4]).resize((96, 96), Image.BICUBIC)
    np.testing.assert_array_equal(data.images[4], np.asarray(expected))
    np.testing.assert_array_equal(resize_arrays(ARRAYS, 32), ARRAYS)


@pytest.fixture
def folder(tmp_path):
    """Return class folders whose image k begins with color 10 k; only a comparison of bytes gives their order."""
    root = tmp_path / "cells"
    for i, name in enumerate(["b/Z.png", "b/a.png", "b/ä.png", "a/1.png", "a/deep/10.png", "a/2.png"]):
        write_image(root / name, np.concatenate([np.full((4, 8, 3), 10 * i, np.uint8), ARRAYS[0, :4, :8]]))
    write_image(root / "b" / ".hidden.png", ARRAYS[0])
    (root / "b" / "notes.txt").write_text("not an image")
    return root


FOLDER_IDS = ("a/1.png", "a/2.png", "a/deep/10.png", "b/Z.png", "b/a.png", "b/ä.png")


def test_a_folder_of_classes(folder):
    data = load_source(f"folder:{folder}", image_size=8)
    assert data.class_names == ("a", "b")
    assert data.ids == FOLDER_IDS
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.images[:, 0, 0, 0].tolist() == [30, 50, 40, 0, 10, 20]
    assert load_source(str(folder), image_size=8).sha256() == data.sha256()


def test_an_archive_is_the_folder(folder, tmp_path):
    data = load_source(f"folder:{folder}", image_size=8)
    plain = load_source(f"zip:{zip_of(folder, tmp_path / 'plain.zip')}", image_size=8)
    assert plain.sha256() == data.sha256()
    # This archive has one folder around everything, and a file that a Mac adds beside it.
    wrapped = zip_of(folder, tmp_path / "wrapped.zip", "dataset v2/")
    with zipfile.ZipFile(wrapped, "a") as archive:
        archive.writestr("__MACOSX/dataset v2/a/._1.png", b"resource fork")
    data = load_source(f"zip:{wrapped}", image_size=8)
    assert data.class_names == ("a", "b")
    assert data.ids == tuple(f"dataset v2/{name}" for name in FOLDER_IDS)


def test_class_names_set_the_order(folder):
    data = load_source(f"folder:{folder}", image_size=8, class_names=("b", "a"))
    assert data.class_names == ("b", "a")
    assert data.labels.tolist() == [1, 1, 1, 0, 0, 0]
    with pytest.raises(DataError, match=r"folder a is not .*data\.class_names \(b, c\)"):
        load_source(f"folder:{folder}", class_names=("b", "c"))


def test_split_folders_are_kept_in_the_order_train_val_test(tmp_path):
    root = tmp_path / "cells"
    for split in ("val", "train", "test"):
        for name in ("x", "y"):
            write_image(root / split / name / "0.png", ARRAYS[0])
    data = load_source(f"folder:{root}", image_size=8)
    assert data.class_names == ("x", "y")
    assert data.ids == tuple(f"{split}/{name}/0.png" for split in ("train", "val", "test") for name in "xy")
    assert {name: indices.tolist() for name, indices in data.splits.items()} == {
        "train": [0, 1],
        "val": [2, 3],
        "test": [4, 5],
    }


def test_the_hash_follows_ids_labels_and_pixels(tmp_path):
    def hash_of(images, labels):
        np.savez(tmp_path / "cells.npz", images=images, labels=labels)
        return load_source(f"npz:{tmp_path / 'cells.npz'}", image_size=32).sha256()

    changed = ARRAYS.copy()
    changed[5, 7, 7, 1] ^= 1
    hashes = {hash_of(ARRAYS, LABELS), hash_of(changed, LABELS), hash_of(ARRAYS, LABELS[::-1])}
    assert len(hashes) == 3
    assert hash_of(ARRAYS, LABELS) in hashes


def test_synthetic_cells():
    data = load_source("synthetic:24", image_size=32)
    assert data.images.shape == (24, 32, 32, 3)
    assert data.class_counts().tolist() == [3] * 8


def test_the_defaults_are_those_of_a_configuration(tmp_path):
    assert load_source("synthetic:24").images.shape[1] == DataConfig().image_size
    write_image(tmp_path / "cells" / "a" / "0.png", ARRAYS[0])
    image = rng.integers(0, 256, (PUBLISHED_SIDE, PUBLISHED_SIDE, 3), dtype=np.uint8)
    write_image(tmp_path / "cells" / "b" / "0.png", image)
    cropped = load_source(f"folder:{tmp_path / 'cells'}", crop=PUBLISHED_CROP)
    np.testing.assert_array_equal(load_source(f"folder:{tmp_path / 'cells'}").images, cropped.images)


def test_the_help_has_every_kind_and_fits():
    lines = source_help().splitlines()
    assert [line.partition(":")[0] for line in lines if not line.startswith(" ")] == list(SOURCES)
    assert max(map(len, lines)) <= 110
    assert len(lines) <= 2 * len(SOURCES)


@pytest.mark.parametrize("source", ["cells", "cells.tar", "images:cells"])
def test_a_source_of_no_kind_is_answered_with_the_kinds(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"^{source}: ") as error:
        load_source(source)
    assert all(f" {name}:{kind.place}" in str(error.value) for name, kind in SOURCES.items())


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("npz", {"exclude": "*_bad.png"}),
        ("synthetic", {"include": "*.png"}),
        ("tfds", {"split_folders": "train=a"}),
        ("medmnist", {"class_level": 2}),
        ("csv", {"class_level": 2}),
        ("folder", {"columns": "label=a"}),
    ],
)
def test_what_a_kind_does_not_read_is_refused(kind, named, tmp_path):
    np.savez(tmp_path / "cells.npz", images=np.zeros((2, 16, 16, 3), np.uint8), labels=np.arange(2))
    (tmp_path / "cells.csv").write_text("file,label\n")
    place = {"npz": tmp_path / "cells.npz", "csv": tmp_path / "cells.csv", "folder": tmp_path, "synthetic": 24}
    with pytest.raises(UsageError, match=rf"data\.{next(iter(named))}=.* means nothing to {kind}:"):
        load_source(f"{kind}:{place.get(kind, 'cells')}", **named)


def test_a_pattern_that_matches_nothing_is_named(folder, caplog):
    load_source(f"folder:{folder}", image_size=16, exclude="*_BAD.png")
    assert "'*_BAD.png'" in caplog.text


@pytest.mark.parametrize("source", ["npz:absent.npz", "absent.npz", "zip:absent.zip", "ABSENT.ZIP", "folder:absent"])
def test_a_path_that_does_not_exist_is_named(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"^{source}: no such file or folder"):
        load_source(source)


def test_a_new_kind_is_one_entry(monkeypatch, tmp_path):
    kind = SourceKind("PATH", "a file with the number of cells", lambda place, *rest: load_synthetic("30", *rest))
    monkeypatch.setitem(SOURCES, "count", kind)
    (tmp_path / "30").touch()
    assert len(load_source(f"count:{tmp_path / '30'}", image_size=16)) == 30
    assert "count:PATH" in source_help()
    with pytest.raises(DataError, match=r"^count:absent: "):
        load_source("count:absent")
    with pytest.raises(UsageError, match=r"count:PATH"):
        load_source("absent")
