"""A prepared dataset knows what was looked at of its files, so that its models look at the same of others."""

import shutil

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax import cli
from bloodcell_jax.data.geometry import FileGeometry, View
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.data.tfds_sets import prepare
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import read_json, write_json


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir()
        for i in range(4):
            Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize("crop", ["none", "20", "0.5"])
def test_prepare_prints_the_flags_and_the_dataset_asks_for_them(files, tmp_path, capsys, crop):
    command = ["bloodcell", "prepare", f"--source=folder:{files}", f"--data_dir={tmp_path}", "--name=cells"]
    assert cli.main([*command, "--image_size=16", f"--crop={crop}"]) == 0
    said = capsys.readouterr()
    assert f"--config.data.crop={crop}" in said.out + said.err
    with pytest.raises(DataError, match=rf"crop={crop}, and data\.crop is auto"):
        load_source("tfds:blood_cells/cells", image_size=16, data_dir=str(tmp_path))
    value = {"none": None, "20": 20, "0.5": 0.5}[crop]
    data = load_source("tfds:blood_cells/cells", image_size=16, data_dir=str(tmp_path), crop=value)
    assert data.file_geometry == FileGeometry(value, None, View(40, 40 if value is None else 20))
    assert data.view == load_source(f"folder:{files}", image_size=16, crop=value).view


def test_evaluate_finds_a_prepared_dataset_and_says_that_its_files_are_others(files, trained, tmp_path, capsys):
    """The model learned from arrays; it is told that they came from files."""
    command = ["bloodcell", "prepare", f"--source=folder:{files}", f"--data_dir={tmp_path}", "--name=cells"]
    assert cli.main([*command, "--image_size=32"]) == 0
    workdir = Workdir(shutil.copytree(trained, tmp_path / "run"))
    environment = read_json(workdir.environment)
    environment["data"]["view"] = {"shorter_side": 360, "side": 200}
    write_json(workdir.environment, environment)
    flags = ["--source=tfds:blood_cells/cells", "--class_map=a=red,b=blue", f"--output={tmp_path / 'out'}"]
    command = ["bloodcell", "evaluate", f"--workdir={workdir}", *flags, "--explain=0"]
    assert cli.main([*command, f"--data_dir={tmp_path}"]) == 0
    said = capsys.readouterr().err
    assert "40 pixels wide and whole" in said
    assert "360 pixels wide and cropped to 200" in said


def test_the_scale_of_a_manifest_is_kept(files, tmp_path):
    rows = [f"{name}/{i}.png,{name},0.05" for name in ("a", "b") for i in range(4)]
    table = files / "cells.csv"
    table.write_text("\n".join(["file,label,scale", *rows]))
    data = load_source(f"csv:{table}", image_size=16, crop=10, microns_per_pixel="scale")
    name = prepare(data, tmp_path, "cells")
    reading = {"image_size": 16, "data_dir": str(tmp_path), "crop": 10}
    with pytest.raises(DataError, match=r"microns_per_pixel=scale"):
        load_source(f"tfds:{name}", **reading)
    again = load_source(f"tfds:{name}", **reading, microns_per_pixel="scale")
    assert again.view == View(40, 20)
    assert again.sha256() == data.sha256()


def test_arrays_have_no_geometry_and_any_is_taken(tmp_path):
    name = prepare(load_source("synthetic:24", image_size=16), tmp_path, "cells")
    reading = {"image_size": 16, "data_dir": str(tmp_path)}
    assert load_source(f"tfds:{name}", **reading, crop=10).view is None
    with pytest.raises(DataError, match=r"data\.microns_per_pixel=scale"):
        load_source(f"tfds:{name}", **reading, microns_per_pixel="scale")


def test_the_same_pixels_cut_in_another_way_are_other_data(files, tmp_path):
    prepare(load_source(f"folder:{files}", image_size=16, crop=40), tmp_path, "cells")
    with pytest.raises(UsageError, match=r"another --name"):
        prepare(load_source(f"folder:{files}", image_size=16, crop=None), tmp_path, "cells")


@pytest.mark.parametrize(
    "value", [None, {}, {"crop": 1, "microns_per_pixel": None}, {"crop": [], "microns_per_pixel": None, "view": {}}]
)
def test_a_damaged_record_is_refused(value):
    with pytest.raises(ValueError, match=r"missing|mapping"):
        FileGeometry.from_json(value)
