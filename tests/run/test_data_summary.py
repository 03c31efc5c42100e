"""What was understood of the data is shown: classes, counts, sizes, geometry, what is left out, and doubts."""

import re
from dataclasses import replace

import numpy as np
from PIL import Image

from bloodcell_jax.data.sources import load_source
from bloodcell_jax.run.data_summary import data_summary


def save(path, width, height, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_files(tmp_path):
    sizes = [(60, 60)] * 5 + [(60, 40)] * 3 + [(20, 24)] + [(16, 16)]
    for seed, (width, height) in enumerate(sizes):
        save(tmp_path / "train" / "ab"[seed % 2] / f"{seed}.png", width, height, seed)
    save(tmp_path / "val" / "a" / "10.png", 60, 60, 10)
    save(tmp_path / "val" / "b" / "11.tif", 60, 60, 11)
    (tmp_path / "train" / "a" / "bad.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    data = load_source(f"folder:{tmp_path}", image_size=32, crop=50, skip_bad=True, exclude="*.tif")
    first, *lines = data_summary(data, data.splits).splitlines()
    assert first == f"folder:{tmp_path}: 11 images, 2 classes"
    assert [line.split() for line in lines[:4]] == [
        ["class", "train", "val"],
        ["a", "5", "1"],
        ["b", "5", "0"],
        ["all", "10", "1"],
    ]
    assert "60x60 (6), 60x40 (3), 16x16 (1), 1 more sizes (1)" in lines[4]
    assert "center-cropped to 50x50 (6); 4 cropped to their centered square; 69.4 % of" in lines[4]
    assert lines[4].endswith("all resized to 32x32")
    assert all(
        words in lines[5] for words in ("1 no images by their suffix .txt", "1 by data.include", "1 not readable")
    )
    assert any(line.startswith("warning: ") and "not square" in line for line in lines[6:])


def test_auto_says_what_it_does(tmp_path):
    for seed, (width, height) in enumerate([(363, 360), (366, 369), (575, 575), (96, 96)]):
        save(tmp_path / "ab"[seed % 2] / f"{seed}.png", width, height, seed)
    data = load_source(f"folder:{tmp_path}", image_size=32)
    said = data_summary(data, {}).splitlines()[5]
    assert "center-cropped to 200x200 (2); crop=auto cuts 200 pixels from files near 360 pixels wide alone" in said
    assert data.sides.tolist() == [200, 575, 200, 96]
    data = load_source(f"folder:{tmp_path}", image_size=32, crop=0.5)
    said = data_summary(data, {}).splitlines()[5]
    assert "center-cropped to 48x48 (1), 180x180 (1), 183x183 (1), 1 more sizes (1); 24.9 % of" in said


def test_groups_are_counted_and_those_in_two_splits_named(tmp_path):
    for split, patients in {"train": "ppqr", "test": "qsss"}.items():
        for seed, patient in enumerate(patients):
            save(tmp_path / split / "ab"[seed % 2] / f"{patient}_{seed}.png", 20, 20, seed)
    data = load_source(f"folder:{tmp_path}", image_size=16, group_regex=r"([a-z])_\d\.png")
    lines = data_summary(data, data.splits).splitlines()
    assert lines[5].split() == ["groups", "3", "2"]
    assert lines[6] == "groups: 4 of 1 to 3 images: p, q, r and 1 more"
    assert any(re.match(r"warning: 1 group is in more than one split \(q; 2 images\)", line) for line in lines)
    assert "\ngroups" not in data_summary(replace(data, groups=None), data.splits)


def test_a_selection_keeps_the_sizes_of_its_images(tmp_path):
    for seed, width in enumerate((20, 30, 40)):
        save(tmp_path / "a" / f"{seed}.png", width, 20, seed)
    data = load_source(f"folder:{tmp_path}", image_size=16).select(np.array([True, False, True]))
    assert data.original_sizes.tolist() == [[20, 20], [40, 20]]


def test_arrays():
    text = data_summary(load_source("synthetic:24", image_size=16), {})
    assert text.splitlines()[0] == "synthetic:24: 24 images, 8 classes"
    assert text.splitlines()[-1] == "images of 16x16 pixels"
