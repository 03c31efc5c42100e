"""How the table of a manifest is written: read in every usual form, and strictly."""

import json
import os

import pytest

from bloodcell_jax.errors import UsageError

ROWS = "file,label\na.png,x\nb.png,y\nsub/c.png,x\nd.png,y\n"
UNDERSTOOD = {"a.png": ("x", ""), "b.png": ("y", ""), "d.png": ("y", ""), "sub/c.png": ("x", "")}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiters_ends_of_lines_and_encodings(manifest, four_images, delimiter, end, encoding):
    text = ROWS.replace(",", delimiter).replace("\n", end)
    source = manifest.write(four_images / f"cells.{'tsv' if delimiter == chr(9) else 'csv'}", text, encoding)
    assert manifest.understood(manifest.read(source.removeprefix("csv:"))) == UNDERSTOOD


def test_json_lines_say_the_same(manifest, four_images):
    rows = [dict(zip(("file", "label"), line.split(","), strict=True)) for line in ROWS.splitlines()[1:]]
    rows[1]["size"] = 3
    data = manifest.read(manifest.write(four_images / "cells.jsonl", "\n".join(map(json.dumps, rows)))[4:])
    assert manifest.understood(data) == UNDERSTOOD
    assert data.columns == {"size": ("", "3", "", "")}


def test_quoted_cells_and_cells_that_say_nothing(manifest, tmp_path):
    manifest.plant(tmp_path, "a,1.png", "b.png")
    source = manifest.write(
        tmp_path / "t.csv", ' File ,LABEL,note\n"a,1.png",x,"one ""big"", lobed"\n\n,,\nb.png, y ,\n'
    )
    data = manifest.read(source)
    assert manifest.understood(data) == {"a,1.png": ("x", ""), "b.png": ("y", "")}
    assert data.columns == {"note": ('one "big", lobed', "")}


BROKEN = {
    "latin-1": ("file,label\na.png,Zelle\nb.png,größe\n".encode("latin-1"), ["line 3", "utf-8"]),
    "UTF-16 without a mark": (ROWS.encode("utf-16-le"), ["NUL"]),
    "NUL": (ROWS.replace("y", "y\0").encode(), ["NUL"]),
    "empty": (b"", ["empty"]),
    "blank": (b" \n\n", ["empty"]),
    "only a header": (b"file,label\n", ["no row"]),
    "no header": (b"a.png,x\nb.png,y\n", ["no column 'file'", "a.png, x"]),
    "one column": (b"file\na.png\n", ["no column 'label'"]),
    "a column twice": (b"file,label,label\na.png,x,y\n", ["'label'", "2 times"]),
    "columns that differ by case": (b"file,label,Label\na.png,x,y\n", ["label, Label"]),
    "a comma too many": (b"file,label\na.png,x\nb.png,y,z\n", ["2 cells", "line 3 has 3"]),
    "a cell too few": (b"file,label,split\na.png,x,train\nb.png,y\n", ["3 cells", "line 3 has 2"]),
    "an open quote": (b'file,label\n"a.png,x\nb.png,y\n', ["quotes"]),
    "a huge cell": (b"file,label\na.png," + b"x" * 200_000, ["line 2", "limit"]),
    "two delimiters": (b"file,label;note\na.png,x;y\n", ["comma and semicolon"]),
    "an image": (b"\x89PNG\r\n\x1a\n\0\0", ["line 1"]),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_table_that_is_none_is_refused(manifest, kind, four_images):
    content, words = BROKEN[kind]
    (four_images / "t.csv").write_bytes(content)
    manifest.refused(f"csv:{four_images / 't.csv'}", *words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"file": "b.png", "label": ', ["line 2"]),
        ('["b.png", "y"]', ["line 2", "object"]),
        ('{"file": "b.png", "label": "x", "label": "y"}', ["line 2", "twice"]),
        ("[" * 100_000, ["line 2"]),
        ('{"file": "\\ud800.png", "label": "y"}', ["line 2", "surrogates"]),
        ('{"file": "b.png", "label": ["x", "y"]}', ["'label'", "short name"]),
        ('{"file": "b.png", "label": NaN}', ["1 of 2", "line 2"]),
        ('{"file": "b.png", "label": null}', ["1 of 2", "line 2"]),
    ],
)
def test_json_that_is_no_row_is_refused(manifest, line, words, four_images):
    manifest.refused(manifest.write(four_images / "t.jsonl", '{"file": "a.png", "label": "x"}\n' + line), *words)


def test_a_wide_table_keeps_every_column(manifest, four_images):
    names = [f"n{i}" for i in range(200)]
    rows = "".join(f"{name},{label},{','.join(map(str, range(200)))}\n" for name, label in (("a.png", 0), ("b.png", 1)))
    data = manifest.read(manifest.write(four_images / "t.csv", f"file,label,{','.join(names)}\n{rows}"))
    assert list(data.columns) == names
    assert data.columns["n7"] == ("7", "7")


def test_what_is_no_table_is_refused(manifest, four_images):
    (four_images / "folder.csv").mkdir()
    manifest.refused(f"csv:{four_images / 'folder.csv'}", "no table")
    os.mkfifo(four_images / "pipe.csv")
    manifest.refused(f"csv:{four_images / 'pipe.csv'}", "a pipe")
    manifest.refused(f"csv:{four_images / 'absent.csv'}", "no such file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_table_that_may_not_be_read(manifest, four_images):
    source = manifest.write(four_images / "t.csv", ROWS)
    (four_images / "t.csv").chmod(0)
    manifest.refused(source, "t.csv", "ermission")


@pytest.mark.parametrize("text", ["file", "files=a", "file=", "file=a,file=b", "label=a,,"])
def test_columns_that_say_nothing(manifest, text, four_images):
    manifest.refused(
        manifest.write(four_images / "t.csv", ROWS), f"data.columns={text}", "group", error=UsageError, columns=text
    )


def test_columns_are_named(manifest, four_images):
    source = manifest.write(four_images / "t.csv", "name,kind,split\na.png,x,test\nb.png,y,test\n")
    named = "file=name,label=kind"
    manifest.refused(source, "without train", "split=", columns=named)
    data = manifest.read(source, columns=f"{named},split=")
    assert data.splits == {}
    assert data.columns == {"split": ("test", "test")}
    manifest.refused(source, "'slide'", "name, kind, split", columns=f"{named},group=slide")
    both = manifest.write(four_images / "u.csv", "file,label,Label\na.png,x,1\nb.png,y,2\n")
    assert manifest.read(both, columns="label=label").class_names == ("x", "y")
    assert manifest.read(both, columns="label=Label").class_names == ("1", "2")
    manifest.refused(source, "'kind'", "twice", columns=f"{named},group=kind")
    manifest.refused(f"folder:{four_images}", "data.columns", "csv:", error=UsageError, columns=named)
