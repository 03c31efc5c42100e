"""Names from outside are shown as what they are: no terminal is steered by them and no spreadsheet runs them."""

import random
import unicodedata

import pytest

from bloodcell_jax.names import names_by_cell, spreadsheet_cell, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cells/1.png", "cells/1.png"),
        ("zellen ü 血球.png", "zellen ü 血球.png"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\nb\tc\rd\0", r"a\nb\tc\rd\x00"),
        ("gpj.\u202egnp", r"gpj.\u202egnp"),
        ("a\u2066b\u200fc", r"a\u2066b\u200fc"),
        ("a\u2028b\x85c", r"a\u2028b\x85c"),
        ("cell-\udce9.jpg", r"cell-\xe9.jpg"),
        ("cell-\ud800", r"cell-\ud800"),
    ],
)
def test_what_has_no_ink_is_escaped(text, shown):
    assert visible(text) == shown
    shown.encode()


def test_lines_and_blanks_stay_where_they_are_wanted():
    assert visible("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "＝1", "＋1", "－1", "＠x", " =1", "a;=1", "a; @b"])
def test_what_a_spreadsheet_would_run_stands_behind_an_apostrophe(name):
    cell = spreadsheet_cell(name)
    place = cell.index("'")
    assert cell[:place] + cell[place + 1 :] == visible(name)
    assert place == (name.index(";") + 1 if ";" in name else 0)


@pytest.mark.parametrize("name", ["\t=1", "\r=1", "\n=1", "\x1b=1"])
def test_a_control_character_no_longer_begins_a_cell(name):
    assert spreadsheet_cell(name)[0] == "\\"


@pytest.mark.parametrize("name", ["1.png", "a=b.png", "slide-3/2.png", "'quoted'", "a@b", "7"])
def test_other_names_stay(name):
    assert spreadsheet_cell(name) == name


def test_visible_names_have_cells_of_their_own():
    letters = random.Random(0)
    names = {"".join(letters.choices("'=;-a ", k=letters.randrange(1, 6))) for _ in range(3000)}
    assert len({spreadsheet_cell(name) for name in names}) == len(names) > 1000
    assert all(names_by_cell(names)[spreadsheet_cell(name)] == name for name in names)


def test_a_file_with_exact_names_is_read_as_well():
    assert names_by_cell(["=a", "b\x1b"]) == {"=a": "=a", "'=a": "=a", "b\x1b": "b\x1b", r"b\x1b": "b\x1b"}


def test_whatever_the_text_no_character_of_it_steers_anything():
    draw = random.Random(1)
    for _ in range(2000):
        text = "".join(chr(draw.randrange(0x3000 if draw.random() < 0.9 else 0x110000)) for _ in range(8))
        shown = spreadsheet_cell(text)
        assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
        assert shown.lstrip(" ")[:1] not in set("=+-@＝＋－＠")
