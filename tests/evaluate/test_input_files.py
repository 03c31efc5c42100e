"""What `predict` is given: every image is found once and named apart, and what is no image is counted."""

import io
import logging
import os
import re
import zipfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.data.image_files import SUFFIXES
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.input_files import find_input_files, looks_like_image

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty folder of a known name."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def encoded(kind="png"):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind)
    return buffer.getvalue()


def write(*names, content=b"x"):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)


def write_zip(path, *names):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, f"{path} {name}")


@pytest.fixture
def find(caplog):
    """Return a function that finds inputs: the names, whose contents the files have, and what the log said."""

    def find(*inputs, strict=False):
        caplog.clear()
        with caplog.at_level(logging.INFO, "bloodcell_jax"), ExitStack() as archives:
            found = find_input_files(list(inputs), archives, strict=strict)
            contents = {file.name: file.read() for file in found.files}
        assert len(contents) == len(found.files)
        return found, contents, caplog.messages

    return find


def test_unique_names_stay_short_and_nothing_is_said(here, find):
    write("a/1.png", "a/deep/2.png", "b/3.jpg", "4.png")
    write_zip("z.zip", "deep/1.png")
    _, contents, said = find("a", "b/*.jpg", "z.zip", "4.png")
    assert list(contents) == ["1.png", "deep/2.png", "3.jpg", "deep/1.png", "4.png"]
    assert not said


COLLISIONS = {
    "folders": (["a", "b"], ["a/1.png", "b/1.png"]),
    "only those that collide": (["a", "b", "other"], ["a/1.png", "b/1.png", "9.png"]),
    "a folder and a zip": (["a", "z.zip"], ["a/1.png", "z.zip/1.png"]),
    "folders of one name": (["x/cells", "y/cells"], ["x/cells/1.png", "y/cells/1.png"]),
    "zips of one name": (["x/z.zip", "y/z.zip"], ["x/z.zip/1.png", "y/z.zip/1.png"]),
    "three, two of one name": (["x/cells", "y/cells", "a"], ["x/cells/1.png", "y/cells/1.png", "a/1.png"]),
    "a prefix that another input has": (["a", "b", "c"], ["work/a/1.png", "b/1.png", "c/a/1.png"]),
    "single images": (["a/1.png", "b/1.png"], ["a/1.png", "b/1.png"]),
    "a pattern": (["[ab]/1.png"], ["a/1.png", "b/1.png"]),
    "a folder written in two ways": (["./a", "b/../b"], ["a/1.png", "b/1.png"]),
}


@pytest.mark.parametrize("case", COLLISIONS)
def test_equal_names_of_two_inputs_are_told_apart(here, find, case):
    for folder in ("a", "b", "x/cells", "y/cells"):
        write(f"{folder}/1.png", content=folder.encode())
    write("other/9.png")
    write("c/a/1.png", content=b"c/a")
    for name in ("z.zip", "x/z.zip", "y/z.zip"):
        write_zip(name, "1.png")
    inputs, names = COLLISIONS[case]
    _, contents, said = find(*inputs)
    assert list(contents) == names
    assert len(set(contents.values())) == len(names)
    (line,) = said
    assert "1.png" in line


def test_a_file_given_twice_has_one_row(here, find):
    write("a/1.png", "a/sub/2.png")
    write_zip("z.zip", "3.png")
    _, contents, (line,) = find("a", "a/*.png", "a/sub", "./a/1.png", "z.zip", "z.zip")
    assert list(contents) == ["1.png", "sub/2.png", "3.png"]
    assert ": 4;" in line


def test_what_is_no_image_is_counted_by_suffix(here, find):
    write("a/1.png", "a/notes.TXT", "a/more.txt", "a/cells.csv", "a/raw.nef", "a/README", "a/.hidden", "a/.git/config")
    with zipfile.ZipFile("z.zip", "w") as archive:
        for name in ("2.png", "3.psd", "__MACOSX/._2.png", ".DS_Store"):
            archive.writestr(name, "x")
    found, contents, (line,) = find("a", "z.zip")
    assert list(contents) == ["1.png", "2.png"]
    assert found.others == {".txt": 2, ".csv": 1, ".nef": 1, "none": 1, ".psd": 1}
    assert ": 6 (" in line
    assert re.search(r"\(\.txt: 2, .*\bnone: 1\b", line)


def test_many_suffixes_are_one_line(here, find):
    write("a/1.png", *(f"a/x.s{i}" for i in range(30)))
    _, _, (line,) = find("a")
    assert ": 30 (" in line
    assert "22 more suffixes" in line


def test_a_file_that_is_named_is_tried_whatever_its_suffix(here, find):
    write("1.dat", "notes.txt", "none")
    found, contents, said = find("1.dat", "notes.txt", "none")
    assert list(contents) == ["1.dat", "notes.txt", "none"]
    assert not found.others
    assert not said


def test_a_pattern_takes_images_and_counts_the_others(here, find):
    write("a/1.png", "a/notes.txt")
    write("a/2.dat", "a/3", content=encoded("jpeg"))
    os.mkfifo("a/pipe")
    found, contents, (line,) = find("a/*")
    assert list(contents) == ["1.png", "2.dat", "3"]
    assert found.others == {".txt": 1, "none": 1}
    assert ": 2 (" in line
    with pytest.raises(UsageError, match=r"b/\*: no such file, folder or match"):
        find("b/*")


def test_strict_knows_images_by_suffix_and_by_content(here, find):
    write("a/1.png", "a/notes.txt", "a/BMI.csv", "a/3.psd", "a/4.czi", content=b"BMI, age\n")
    write("a/5.dat", content=encoded("tiff"))
    write_zip("z.zip", "6.svg", "7.json")
    with zipfile.ZipFile("z.zip", "a") as archive:
        archive.writestr("8", encoded("webp"))
    found, _, _ = find("a", "z.zip", strict=True)
    assert found.passed_over == ["3.psd", "4.czi", "5.dat", "6.svg", "8"]
    assert not find("a", "z.zip")[0].passed_over


def test_a_link_that_leads_nowhere_is_said(here, find):
    write("a/1.png")
    Path("a/monday").symlink_to("unmounted")
    assert any("monday" in message and "no row" in message for message in find("a")[2])
    assert find("a", strict=True)[0].passed_over == ["monday"]


@pytest.mark.parametrize(
    "kind", ["jpeg", "png", "tiff", "gif", "webp", "bmp", *(["avif"] if ".avif" in SUFFIXES else [])]
)
def test_the_first_bytes_tell_images_from_text(kind):
    assert looks_like_image(Path("x"), encoded(kind)[:32])
    assert not looks_like_image(Path("x"), b"BM,II,MM,GIF,RIFF,ftyp,P6 255 255")


def test_a_folder_that_cannot_be_listed_is_named(here, find, monkeypatch):
    write("a/1.png", "a/locked/2.png")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"a/locked: .*Permission denied"):
        find("a")
