"""Prepared datasets from anywhere: no pipe is waited for, and no module is imported because a file names it."""

import json
import os
import sys

import numpy as np
import pytest

from bloodcell_jax.data.dataset import Dataset, index_ids
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.data.tfds_sets import prepare
from bloodcell_jax.errors import DataError

LABELS = np.arange(6, dtype=np.int32) % 2
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Return the folder of a prepared dataset."""
    prepare(Dataset(IMAGES, LABELS, ("a", "b"), index_ids(6), "npz:x"), tmp_path / "sets", "cells")
    return next((tmp_path / "sets").rglob("features.json")).parent


def refused(folder):
    with pytest.raises(DataError) as caught:
        load_source("tfds:blood_cells/cells", image_size=16, data_dir=str(folder.parents[2]))
    (line,) = str(caught.value).splitlines()
    assert line.startswith("tfds:blood_cells/cells: ")
    return line


def test_a_class_that_a_file_names_is_not_imported(folder, monkeypatch):
    (folder / "other.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(folder)
    features = json.loads((folder / "features.json").read_text())
    for key in ("pythonClassName", "type", "python_class_name"):
        (folder / "features.json").write_text(json.dumps({"a": [features | {key: "other.Feature"}]}))
        assert "other.Feature" in refused(folder)
    assert "other" not in sys.modules


@pytest.mark.parametrize(
    "pattern", ["dataset_info.json", "features.json", "*.labels.txt", "*.array_record*", "index.npz"]
)
def test_a_pipe_among_the_files_is_not_waited_for(folder, pattern):
    path = next(folder.glob(pattern))
    path.unlink()
    os.mkfifo(path)
    assert f"{path}: a pipe" in refused(folder)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "{}", "3", "\xff", '{"features": 3}'])
def test_a_description_of_another_kind(folder, name, content):
    (folder / name).write_text(content, encoding="latin-1")
    refused(folder)


def test_records_that_are_damaged(folder):
    path = next(folder.glob("*.array_record*"))
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], bytes(byte ^ 0x55 for byte in content)):
        path.write_bytes(damaged)
        refused(folder)
