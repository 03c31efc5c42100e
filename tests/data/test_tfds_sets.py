"""Any source, prepared into array_record, is read as the same data; and any prepared dataset is read by its name."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax import cli
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.data.tfds_sets import default_name, prepare
from bloodcell_jax.errors import DataError, UsageError

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)


def fill(root, splits=("",)):
    for split in splits:
        for k, name in enumerate(("zelle ä", "b")):
            (root / split / name).mkdir(parents=True)
            for i in range(4):
                Image.fromarray(IMAGES[4 * k + i] // (1 + len(split))).save(root / split / name / f"{i}血.png")
    return f"folder:{root}"


@pytest.mark.parametrize("splits", [("",), ("train", "val"), ("train", "val", "test"), ("train", "test")])
def test_a_prepared_source_is_the_source(tmp_path, splits):
    data = load_source(fill(tmp_path / "cells", splits), image_size=16)
    name = prepare(data, tmp_path / "sets", "cells-2.1")
    assert name == "blood_cells/cells-2.1"
    again = load_source(f"tfds:{name}", image_size=16, data_dir=str(tmp_path / "sets"))
    np.testing.assert_array_equal(again.images, data.images)
    np.testing.assert_array_equal(again.labels, data.labels)
    assert again.labels.dtype == np.int32
    assert (again.class_names, again.ids) == (data.class_names, data.ids)
    assert {split: i.tolist() for split, i in again.splits.items()} == {k: i.tolist() for k, i in data.splits.items()}
    assert again.sha256() == data.sha256()


@pytest.mark.parametrize("splits", [("",), ("test", "train")])
def test_groups_are_kept(tmp_path, splits):
    source = fill(tmp_path / "cells", splits)
    data = load_source(source, image_size=16, group_regex=r"(\d)血")
    name = prepare(data, tmp_path / "sets", "cells")
    for has_index in (True, False):
        again = load_source(f"tfds:{name}", image_size=16, data_dir=str(tmp_path / "sets"))
        assert dict(zip(again.ids, again.groups, strict=True)) == dict(zip(data.ids, data.groups, strict=True))
        if has_index:
            next((tmp_path / "sets").rglob("index.npz")).unlink()
    with pytest.raises(UsageError, match=r"names 4 groups itself \(0, 1, 2 and 1 more\)"):
        load_source(f"tfds:{name}", image_size=16, data_dir=str(tmp_path / "sets"), group_regex=r"(\d)血")
    with pytest.raises(UsageError, match=r"other groups"):
        prepare(load_source(source, image_size=16), tmp_path / "sets", "cells")


def test_a_set_without_groups_has_none_and_its_ids_may_give_them(tmp_path):
    name = prepare(load_source(fill(tmp_path / "cells"), image_size=16), tmp_path, "cells")
    assert load_source(f"tfds:{name}", image_size=16, data_dir=str(tmp_path)).groups is None
    again = load_source(f"tfds:{name}", image_size=16, data_dir=str(tmp_path), group_regex=r"/(\d)")
    assert sorted(again.groups) == sorted("0123" * 2)


def test_preparing_again_changes_nothing_and_other_data_need_another_name(tmp_path):
    data = load_source(fill(tmp_path / "cells"), image_size=16)
    name = prepare(data, tmp_path / "sets", "cells")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sets").rglob("*")}
    assert prepare(data, tmp_path / "sets", "cells") == name
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "sets").rglob("*")} == before
    with pytest.raises(UsageError, match=r"other names .*\(b, zelle ä; now cell, b\).*--name"):
        prepare(dataclasses.replace(data, class_names=("cell", "b")), tmp_path / "sets", "cells")
    for parts in (range(6), range(6, 8)), (range(2, 8), range(2)):
        splits = {name: np.array(part, np.int32) for name, part in zip(("train", "val"), parts, strict=True)}
        with pytest.raises(UsageError, match=r"other splits .*\(whole 8; now train 6, val 2\).*--name"):
            prepare(dataclasses.replace(data, splits=splits), tmp_path / "sets", "cells")
        prepare(dataclasses.replace(data, splits=splits), tmp_path / "sets", f"cells{parts[0][0]}")
    with pytest.raises(UsageError, match=r"other splits .*\(train 6, val 2; now train 6, val 2\)"):
        prepare(dataclasses.replace(data, splits=splits), tmp_path / "sets", "cells0")
    with pytest.raises(UsageError, match=r"blood_cells/cells: .*sha256 [0-9a-f]{12}, now [0-9a-f]{12}\).*--name"):
        prepare(load_source(fill(tmp_path / "other", ("train", "val")), image_size=16), tmp_path / "sets", "cells")


def test_it_appears_whole_or_not_at_all_and_takes_no_tensorflow_or_memory_for_large_sets(tmp_path, monkeypatch):
    # TFDS's own writer keeps records in memory up to this many bytes, and needs TensorFlow beyond.
    monkeypatch.setattr("tensorflow_datasets.core.shuffle.MAX_MEM_BUFFER_SIZE", 1)
    monkeypatch.setattr("bloodcell_jax.data.tfds_sets._SHARD_BYTES", 3 * IMAGES[0].nbytes)
    data = load_source(fill(tmp_path / "cells", ("train", "val")), image_size=16)
    sets = tmp_path / "sets"
    left = sets / ".cells.incomplete" / "blood_cells" / "cells"
    left.mkdir(parents=True)
    (left / "records").write_text("leftovers of an interrupted run")
    broken = dataclasses.replace(data, ids=[*data.ids[:-1], None])
    with pytest.raises(TypeError, match="got None"):
        prepare(broken, sets, "cells")
    assert list(sets.iterdir()) == []
    prepare(data, sets, "cells")
    assert [path.name for path in sets.iterdir()] == ["blood_cells"]
    assert len(list(sets.rglob("*-train.array_record-*"))) == 3
    again = load_source("tfds:blood_cells/cells", image_size=16, data_dir=str(sets))
    assert (again.sha256(), again.ids) == (data.sha256(), data.ids)


def test_names(tmp_path):
    sources = ("zip:/data/PBC set (1).zip", "medmnist:bloodmnist_64", "synthetic:48", "folder:x/cells/", "cells.npz")
    assert [default_name(source) for source in sources] == [
        "PBC_set_1",
        "bloodmnist_64",
        "synthetic_48",
        "cells",
        "cells",
    ]
    with pytest.raises(UsageError, match=r"--name=\.\./x"):
        prepare(load_source("synthetic:24", image_size=16), tmp_path, "../x")


def info_of(folder, name):
    return json.loads((folder / f"blood_cells/{name}/1.0.0/dataset_info.json").read_text())


def test_published_data_bring_citation_and_license(tmp_path):
    cells = load_source("synthetic:24", image_size=16)
    prepare(dataclasses.replace(cells, source="medmnist:bloodmnist"), tmp_path, "bloodmnist")
    info = info_of(tmp_path, "bloodmnist")
    assert "10.1016/j.dib.2020.105474" in info["citation"]
    assert "10.1038/s41597-022-01721-8" in info["citation"]
    assert info["redistributionInfo"]["license"] == "CC BY 4.0"
    assert "Hospital Clinic of Barcelona" in info["description"]
    assert info["fileFormat"] == "array_record"


@pytest.mark.parametrize("name", ["pbc", "bloodmnist_64", "mine"])
def test_a_name_alone_brings_neither_citation_nor_license(tmp_path, name):
    prepare(load_source("synthetic:24", image_size=16), tmp_path, name)
    text = json.dumps(info_of(tmp_path, name))
    assert not any(word in text for word in ("acevedo", "Barcelona", "CC BY"))
    assert load_source(f"tfds:blood_cells/{name}", image_size=16, data_dir=str(tmp_path)).ids[0] == "0"


def test_the_verb_prepares_the_cleaned_data_without_tensorflow(tmp_path):
    from bloodcell_jax.data.cleaning import Removal, clean_file

    source = fill(tmp_path / "cells")
    (tmp_path / "cells" / "b" / "bad.png").write_bytes(b"")
    data = load_source(source, image_size=16, skip_bad=True)
    removal = Removal(2, data.ids[2], "outlier", "no cell")
    (tmp_path / "clean.json").write_text(json.dumps(clean_file(data, data.sha256(), [removal])))
    words = ["prepare", f"--source={source}", f"--data_dir={tmp_path / 'sets'}", "--image_size=16"]
    words += [f"--clean={tmp_path / 'clean.json'}", "--skip_bad"]
    program = "import sys; from bloodcell_jax import cli; code = cli.main(['bloodcell', *sys.argv[1:]]); "
    program += "print('tensorflow' in sys.modules, 'jax' in sys.modules); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, flags, imported = done.stdout.splitlines()
    assert count.startswith("7 images of 2 classes")
    assert flags.split() == [
        "--config.data.source=tfds:blood_cells/cells",
        f"--config.data.data_dir={tmp_path / 'sets'}",
    ]
    assert imported == "False False"
    assert "bad.png skipped (an empty file)" in done.stderr
    again = load_source("tfds:blood_cells/cells", image_size=16, data_dir=str(tmp_path / "sets"))
    assert again.ids == tuple(name for name in data.ids if name != removal.id)
    assert again.skipped == {"b/bad.png": "an empty file"}


def test_the_verb_refuses_a_place_that_it_cannot_write_to(tmp_path, capsys):
    assert cli.main(["bloodcell", "prepare", "--source=synthetic:24"]) == 2
    assert "--data_dir" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    words = ["--source=synthetic:24", "--image_size=16", f"--data_dir={tmp_path / 'file'}"]
    assert cli.main(["bloodcell", "prepare", *words]) == 5
    assert f"--data_dir={tmp_path / 'file'}: " in capsys.readouterr().err


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Return a folder with a dataset of another tool: gray, of unequal sizes, with TFDS's names of splits."""
    import tensorflow_datasets as tfds

    class Nuclei(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("3.0.1")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 1)),
                "slide": tfds.features.Scalar(np.int64),
                "kind": tfds.features.ClassLabel(names=["round", "bent"]),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            counts = {"test": 3, "train": 8, "validation": 4, "unlabeled": 2}
            return {name: self._generate_examples(name, count) for name, count in counts.items()}

        def _generate_examples(self, name, count):
            for i in range(count):
                gray = np.full((10 + i, 12, 1), 10 * i + len(name), np.uint8)
                yield i, {"image": _png(gray), "slide": i, "kind": -1 if name == "unlabeled" else i % 2}

    def _png(gray):
        import io

        buffer = io.BytesIO()
        Image.fromarray(gray[..., 0]).save(buffer, "png")
        buffer.seek(0)
        return buffer

    folder = tmp_path_factory.mktemp("sets")
    builder = Nuclei(data_dir=folder, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return folder


def test_any_prepared_image_classification_dataset_is_read_by_name(foreign):
    data = load_source("tfds:nuclei", image_size=16, data_dir=str(foreign))
    assert data.class_names == ("round", "bent")
    assert {name: indices.tolist() for name, indices in data.splits.items()} == {
        "train": list(range(8)),
        "val": list(range(8, 12)),
        "test": list(range(12, 15)),
    }
    assert data.class_counts().tolist() == [8, 7]
    assert data.images.shape == (15, 16, 16, 3)
    train = data.images[data.splits["train"]]
    assert sorted(train[:, 8, 8, 0].tolist()) == [10 * i + len("train") for i in range(8)]
    assert (train[..., 0] == train[..., 2]).all()
    assert data.ids == tuple(map(str, range(15)))


def with_splits(foreign, folder, **names):
    """Return a copy of the other tool's datasets in which splits have other names."""
    shutil.copytree(foreign, folder)
    for path in list(folder.rglob("*")):
        if path.name == "dataset_info.json":
            text = path.read_text()
            for old, new in names.items():
                text = text.replace(f'"name": "{old}"', f'"name": "{new}"')
            path.write_text(text)
        for old, new in names.items():
            if f"-{old}." in path.name:
                path.rename(path.with_name(path.name.replace(f"-{old}.", f"-{new}.")))
    return {"image_size": 16, "data_dir": str(folder)}


def test_splits_have_the_names_that_folders_may_have_and_others_are_said(foreign, tmp_path, caplog):
    data = load_source("tfds:nuclei", **with_splits(foreign, tmp_path / "a", train="Training", validation="valid"))
    assert {name: len(indices) for name, indices in data.splits.items()} == {"train": 8, "val": 4, "test": 3}
    assert data.left_out == {"split unlabeled": 2}
    assert any("unlabeled (2)" in message for message in caplog.messages)
    data = load_source("tfds:nuclei", **with_splits(foreign, tmp_path / "b", train="extra", validation="more"))
    assert {name: len(indices) for name, indices in data.splits.items()} == {"test": 3}
    assert data.left_out == {"split extra": 8, "split more": 4, "split unlabeled": 2}
    with pytest.raises(DataError, match="are both test"):
        load_source("tfds:nuclei", **with_splits(foreign, tmp_path / "c", validation="testing"))


def test_a_missing_or_unfit_dataset_says_so(foreign, tmp_path):
    with pytest.raises(DataError, match=r"tfds:cells: not prepared .*\bnuclei\b.*data\.data_dir"):
        load_source("tfds:cells", data_dir=str(foreign))
    with pytest.raises(DataError, match=r"tfds:cells: not prepared .*\bno datasets\b"):
        load_source("tfds:cells", data_dir=str(tmp_path))
    with pytest.raises(DataError, match=r"\b2 classes round, bent; data\.class_names has 3\b"):
        load_source("tfds:nuclei", data_dir=str(foreign), class_names=("a", "b", "c"))


def copied(foreign, tmp_path):
    import shutil

    shutil.copytree(foreign, tmp_path / "sets")
    return tmp_path / "sets" / "nuclei" / "3.0.1"


def test_another_file_format_says_what_to_do(foreign, tmp_path):
    info = copied(foreign, tmp_path) / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match=r"tfds:nuclei: .*\btfrecord\b.*file_format=array_record"):
        load_source("tfds:nuclei", data_dir=str(tmp_path / "sets"))


@pytest.mark.parametrize("damage", ["missing", "truncated", "overwritten"])
def test_a_damaged_file_is_no_traceback(foreign, tmp_path, damage):
    (shard,) = copied(foreign, tmp_path).glob("*train.array_record*")
    content = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    else:
        half = len(content) // 2
        shard.write_bytes(content[:half] if damage == "truncated" else bytes(half) + content[half:])
    with pytest.raises(DataError, match="tfds:nuclei"):
        load_source("tfds:nuclei", data_dir=str(tmp_path / "sets"))
