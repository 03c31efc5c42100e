"""The differential count: in all, and in each folder under a name of its own."""

import contextlib
from pathlib import Path

import numpy as np

from bloodcell_jax.evaluate.differential import Differential
from bloodcell_jax.evaluate.input_files import find_input_files
from bloodcell_jax.report.differential_text import differential_text

NAMES = ("ig", "monocyte", "neutrophil")


def counted(folders):
    differential = Differential(NAMES)
    for folder, counts in folders.items():
        for label, count in enumerate(counts):
            for _ in range(count):
                differential.add(folder, label, known=True)
    return differential


def test_counts_shares_and_full_names_stand_in_columns():
    text = differential_text(counted({"monday": (1, 0, 2), "tuesday": (0, 1, 12)}), 80)
    assert text.splitlines() == [
        "class                            all    monday    tuesday",
        "immature granulocyte (ig)   1   6.2%  1  33.3%   0   0.0%",
        "monocyte                    1   6.2%  0   0.0%   1   7.7%",
        "neutrophil                 14  87.5%  2  66.7%  12  92.3%",
        "images                     16 100.0%  3 100.0%  13 100.0%",
    ]


def test_images_that_are_not_known_are_counted_and_said():
    differential = counted({"monday": (1, 0, 2), "tuesday": (0, 1, 12)})
    differential.add("tuesday", 1, known=False)
    lines = differential_text(differential, 80).splitlines()
    assert lines[2].split()[1:] == ["2", "11.8%", "0", "0.0%", "2", "14.3%"]
    assert lines[-1].split() == ["of", "these,", "not", "known", "1", "5.9%", "0", "0.0%", "1", "7.1%"]


def test_one_folder_has_one_column():
    text = differential_text(counted({"monday": (0, 0, 1500)}), 80)
    assert text.splitlines()[0].split() == ["class", "all"]
    assert text.splitlines()[-1].split() == ["images", "1,500", "100.0%"]


def test_folders_that_do_not_fit_stand_below_and_no_line_is_too_long():
    folders = {f"slide {number}": (number, 1, 1) for number in range(40)}
    text = differential_text(counted(folders), 80)
    tables = text.split("\n\n")
    assert max(map(len, text.splitlines())) <= 80
    assert all(table.splitlines()[1].startswith("immature granulocyte (ig)") for table in tables)
    assert [word for table in tables for word in table.splitlines()[0].split() if word.isdecimal()] == [
        str(number) for number in range(12)
    ]
    assert text.splitlines()[-1].startswith("28 more folders")


def test_a_name_of_a_folder_cannot_steer_the_terminal():
    assert r"a\x1b[2J" in differential_text(counted({"a\x1b[2J": (1, 0, 0), "b": (1, 0, 0)}), 80)


def test_each_folder_has_a_name_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.png", "a/sub/2.png", "x/cells/3.png", "y/cells/4.png", "y/5.png", "a/cells/sub/6.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")
    with contextlib.ExitStack() as archives:
        found = find_input_files(["a", "x", "y/cells", "y/5.png", "a/1.png"], archives, strict=False)
    folders = {file.inside.rpartition("/")[2]: file.folder for file in found.files}
    assert folders == {
        "1.png": "a",
        "2.png": "a/sub",
        "3.png": "x/cells",
        "4.png": "y/cells",
        "5.png": "y",
        "6.png": "cells/sub",
    }
    assert [file.name for file in found.files if file.inside == "1.png"] == ["1.png"]


def test_the_total_is_the_sum_of_the_folders():
    differential = counted({"a": (1, 2, 3), "b": (4, 0, 0)})
    np.testing.assert_array_equal(differential.total, [5, 2, 3])
    np.testing.assert_array_equal(differential.folders["b"], [4, 0, 0])
