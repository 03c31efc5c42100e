"""What predict and evaluate write: names that do no harm, and no file that is read, a device or another program's."""

import contextlib
import csv
import os
import re
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax import cli
from bloodcell_jax.run.watch import progress

NAMES = ("red", "green", "blue")


@pytest.fixture
def image_folder(cells, tmp_path):
    """Return a folder of two of the training images."""
    folder = tmp_path / "images"
    folder.mkdir()
    with np.load(cells) as arrays:
        for number, image in enumerate(arrays["images"][:2]):
            Image.fromarray(image).save(folder / f"{number}.png")
    return folder


def read_rows(path):
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


HOSTILE = ["=cmd|' C calc'!A0.png", "+1.png", "a\x1b[2J.png", "b\nc.png", "gpj.\u202egnp.png", "x;=1.png"]
SHOWN = [r"'+1.png", "'=cmd|' C calc'!A0.png", r"a\x1b[2J.png", r"b\nc.png", r"gpj.\u202egnp.png", "x;'=1.png"]


def test_names_in_a_csv_do_no_harm_unless_they_are_asked_for(trained, cells, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    with np.load(cells) as arrays:
        for name, image in zip(HOSTILE, arrays["images"], strict=False):
            Image.fromarray(image).save(tmp_path / "images" / name, "png")
    (tmp_path / "images" / "broken\x1b\n.png").write_bytes(b"no image")
    output = tmp_path / "cells.csv"
    command = ["bloodcell", "predict", f"--workdir={trained}", f"--input={tmp_path / 'images'}", f"--output={output}"]
    assert cli.main(command) == 0
    assert [row["file"] for row in read_rows(output)] == SHOWN
    (line,) = capsys.readouterr().err.splitlines()
    assert r"broken\x1b\n.png" in line
    assert cli.main([*command, "--raw_names"]) == 0
    assert sorted(row["file"] for row in read_rows(output)) == sorted(HOSTILE)
    assert cli.main(["bloodcell", "predict", "--help"]) == 0
    assert "--raw_names" in capsys.readouterr().out


def test_an_evaluation_with_names_like_formulas_is_read_back(trained, cells, tmp_path, capsys):
    source, results = tmp_path / "lab", tmp_path / "results"
    with np.load(cells) as arrays:
        images, labels = arrays["images"][::5], arrays["labels"][::5]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (source / NAMES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(source / NAMES[label] / f"={number % 2};=x{number}.png")
    read = [f"--source=folder:{source}", r"--group_regex=/(=\d)"]
    command = ["bloodcell", "evaluate", f"--workdir={trained}", *read, f"--output={results}"]
    for flag, apostrophe in ((), "'"), (("--raw_names",), ""):
        assert cli.main([*command, *flag]) == 0
        ids = [row["id"] for row in read_rows(results / "predictions.csv")]
        assert all(f";{apostrophe}=x" in name for name in ids)
        assert [row["group"] for row in read_rows(results / "groups.csv")] == [f"{apostrophe}=0", f"{apostrophe}=1"]
        audit = ["bloodcell", "audit", *read, "--image_size=32", "--class_names=red,green,blue"]
        given = f"--predictions={results / 'predictions.csv'}"
        assert cli.main([*audit, given, f"--output={tmp_path / 'audit'}"]) == 0
        assert "cover 24 of 24 images" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["images/0.png", "link.csv", "hard.csv", "model", "images/new.png"])
def test_predict_never_writes_over_what_it_reads(trained, image_folder, tmp_path, capsys, output):
    (tmp_path / "link.csv").symlink_to(image_folder / "0.png")
    os.link(image_folder / "0.png", tmp_path / "hard.csv")
    shutil.copy(trained / "model.safetensors", tmp_path / "model")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    command = ["bloodcell", "predict", f"--model={tmp_path / 'model'}", f"--input={image_folder}"]
    assert cli.main([*command, f"--output={tmp_path / output}"]) == 2
    assert f"--output={tmp_path / output}: " in capsys.readouterr().err.splitlines()[-1]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_predict_keeps_another_programs_files_and_devices(trained, image_folder, tmp_path):
    (tmp_path / "cells.csv.tmp").write_text("mine")
    command = ["bloodcell", "predict", f"--workdir={trained}", f"--input={image_folder}"]
    assert cli.main([*command, f"--output={tmp_path / 'cells.csv'}"]) == 0
    assert (tmp_path / "cells.csv.tmp").read_text() == "mine"
    assert cli.main([*command, "--output=/dev/null"]) == 0
    assert cli.main([*command, "--output=/dev/full"]) == 5
    assert not any(os.path.isfile(name) for name in ("/dev/null", "/dev/full"))


@pytest.mark.parametrize("kind", ["device", "pipe"])
def test_an_input_that_never_ends_is_no_image(trained, tmp_path, capsys, kind):
    path = "/dev/zero" if kind == "device" else tmp_path / "pipe.png"
    if kind == "pipe":
        os.mkfifo(path)
    command = ["bloodcell", "predict", f"--workdir={trained}", f"--output={tmp_path / 'cells.csv'}"]
    assert cli.main([*command, f"--input={path}"]) == 3
    assert f"(a {kind})" in capsys.readouterr().err


def test_a_folder_of_zips_says_that_a_zip_is_an_input(tmp_path, capsys):
    (tmp_path / "cells.zip").touch()
    command = ["bloodcell", "predict", "--model=pbc_atto", f"--input={tmp_path}", f"--output={tmp_path / 'cells.csv'}"]
    assert cli.main(command) == 3
    assert re.search(r"\.zip: 1\b.*\bzip\b", capsys.readouterr().err)


def test_sigterm_leaves_no_half_of_a_file(trained, image_folder, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def stopped(title):
        yield lambda done, total: done and os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(progress, "show_pass", stopped)
    output, handler = tmp_path / "cells.csv", signal.getsignal(signal.SIGTERM)
    output.write_text("of an earlier call")
    before = sorted(tmp_path.rglob("*"))
    command = ["bloodcell", "predict", f"--workdir={trained}", f"--input={image_folder}", f"--output={output}"]
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    assert ended.value.code == 128 + signal.SIGTERM
    assert sorted(tmp_path.rglob("*")) == before
    assert output.read_text() == "of an earlier call"
    assert signal.getsignal(signal.SIGTERM) == handler
