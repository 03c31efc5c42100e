"""Manifests: published forms are read right; what could mislabel, or lose a row in silence, is refused with counts."""

import json
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.data.manifest.columns import parse_file_pattern
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.errors import DataError, UsageError


def plant(root, *names):
    """Write an image of noise at every path, no two alike."""
    for number, name in enumerate(names):
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(target, None if target.suffix.strip() in Image.EXTENSION else "PNG")


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return f"csv:{path}"


def read(source, **options):
    return load_source(str(source), image_size=16, **options)


def understood(data):
    """Return id -> (class, split) of a dataset."""
    split_of = {int(i): name for name, indices in data.splits.items() for i in indices}
    return {
        name: (data.class_names[label], split_of.get(i, ""))
        for i, (name, label) in enumerate(zip(data.ids, data.labels, strict=True))
    }


def refused(source, *words, error=DataError, **options):
    with pytest.raises(error) as caught:
        read(source, **options)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def cells(tmp_path):
    plant(tmp_path, "a.png", "b.png", "sub/c.png", "d.png")
    return tmp_path


ROWS = "file,label\na.png,x\nb.png,y\nsub/c.png,x\nd.png,y\n"
UNDERSTOOD = {"a.png": ("x", ""), "b.png": ("y", ""), "d.png": ("y", ""), "sub/c.png": ("x", "")}


# The published forms.


def test_wbcbench_has_a_table_for_each_split(tmp_path):
    plant(
        tmp_path, "phase1/01.jpg", "phase1/02.jpg", "phase2/train/11.jpg", "phase2/train/12.jpg", "phase2/eval/13.jpg"
    )
    plant(tmp_path, "phase2/eval/14.jpg", "phase2/test/15.jpg")
    write(tmp_path / "phase1_label.csv", "ID,labels\n01.jpg,BA\n02.jpg,LY\n")
    write(tmp_path / "phase2_train.csv", "ID,labels\n11.jpg,LY\n12.jpg,BA\n")
    write(tmp_path / "phase2_eval.csv", "ID,labels\n13.jpg,BA\n14.jpg,LY\n")
    write(tmp_path / "phase2_test.csv", "ID\n15.jpg\n")
    named = {"columns": "file=ID,label=labels", "file_pattern": "**/{file}"}
    splits = "train=phase1_label.csv,train=phase2_train.csv,val=phase2_eval.csv"
    refused(f"csv:{tmp_path}", "phase1_label.csv, phase2_eval.csv", "data.split_folders", "data.exclude", **named)
    data = read(f"csv:{tmp_path}", split_folders=splits, exclude="phase2_test.csv", **named)
    assert understood(data) == {
        "phase1/01.jpg": ("BA", "train"),
        "phase1/02.jpg": ("LY", "train"),
        "phase2/train/11.jpg": ("LY", "train"),
        "phase2/train/12.jpg": ("BA", "train"),
        "phase2/eval/13.jpg": ("BA", "val"),
        "phase2/eval/14.jpg": ("LY", "val"),
    }
    assert data.left_out == {"not named by the manifest": 1, "no images by their suffix .csv": 1}


def test_wbcatt_has_attributes(tmp_path):
    header = "cell_size,nucleus_shape,label,path,img_name"
    plant(tmp_path, "PBC_dataset_normal_DIB/basophil/BA_1.jpg", "PBC_dataset_normal_DIB/monocyte/MO_2.jpg")
    plant(tmp_path, "PBC_dataset_normal_DIB/monocyte/MO_3.jpg", "PBC_dataset_normal_DIB/platelet/PL_1.jpg")
    rows = {
        "train": f"{header}\nbig,segmented,Basophil,PBC_dataset_normal_DIB/basophil/BA_1.jpg,BA_1.jpg\n"
        "small,indented,Monocyte,PBC_dataset_normal_DIB/monocyte/MO_2.jpg,MO_2.jpg\n",
        "test": f"{header}\nbig,indented,Monocyte,PBC_dataset_normal_DIB/monocyte/MO_3.jpg,MO_3.jpg\n",
    }
    for split, text in rows.items():
        write(tmp_path / "annotations" / f"{split}.csv", text)
    data = read(f"csv:{tmp_path}/annotations", root=str(tmp_path), columns="file=path")
    assert understood(data) == {
        "PBC_dataset_normal_DIB/basophil/BA_1.jpg": ("Basophil", "train"),
        "PBC_dataset_normal_DIB/monocyte/MO_2.jpg": ("Monocyte", "train"),
        "PBC_dataset_normal_DIB/monocyte/MO_3.jpg": ("Monocyte", "test"),
    }
    assert data.columns["cell_size"] == ("big", "small", "big")
    assert set(data.columns) == {"cell_size", "nucleus_shape", "img_name"}
    by_name = read(f"csv:{tmp_path}/annotations", root=str(tmp_path), columns="file=img_name", file_pattern="**/{file}")
    assert by_name.sha256() == data.sha256()


def test_cnmc_has_folds_and_a_table(tmp_path):
    folds = [f"fold_{fold}/{kind}/UID_{fold}_1_1_{kind}.bmp" for fold in range(3) for kind in ("all", "hem")]
    plant(tmp_path, *folds)
    write(tmp_path / "folds.csv", "file,label,fold\n" + "".join(f"{f},{f.split('/')[1]},{f[:6]}\n" for f in folds))
    named = {"columns": "split=fold"}
    refused(f"csv:{tmp_path}/folds.csv", "fold_0 (2 rows)", "data.split_folders=train=fold_0", **named)
    data = read(f"csv:{tmp_path}/folds.csv", split_folders="train=fold_0,train=fold_1,val=fold_2", **named)
    assert understood(data) == {f: (f.split("/")[1], "val" if "fold_2" in f else "train") for f in folds}
    plant(tmp_path / "test", "1.bmp", "2.bmp", "3.bmp")
    text = (
        "Patient_ID,new_names,labels\nUID_57_29_1_all.bmp,1.bmp,1\nUID_58_2_1_hem.bmp,2.bmp,0\nUID_57_2.bmp,3.bmp,1\n"
    )
    data = read(
        write(tmp_path / "test/labels.csv", text),
        columns="file=new_names,label=labels,group=Patient_ID",
        class_names=("hem", "all"),
    )
    assert understood(data) == {"1.bmp": ("all", ""), "2.bmp": ("hem", ""), "3.bmp": ("all", "")}
    assert data.groups == ("UID_57_29_1_all.bmp", "UID_58_2_1_hem.bmp", "UID_57_2.bmp")


def test_segmentation_wbc_has_numbers_as_names_and_labels_from_1(tmp_path):
    plant(tmp_path, *(f"Dataset 1/{i:03d}.{suffix}" for i in (1, 2, 3) for suffix in ("bmp", "png")))
    source = write(tmp_path / "Class Labels of Dataset 1.csv", "image ID,class label\n1,1\n2,2\n3,1\n")
    named = {"columns": "file=image ID,label=class label", "root": str(tmp_path / "Dataset 1")}
    refused(source, "3 of 3", "'{file:03d}.", **named)
    named["file_pattern"] = "{file:03d}.bmp"
    data = read(source, **named)
    assert understood(data) == {"001.bmp": ("1", ""), "002.bmp": ("2", ""), "003.bmp": ("1", "")}
    assert data.left_out == {"not named by the manifest": 3}
    # Counted from 0 or from 1: nobody knows, so a table says it.
    names = ("neutrophil", "lymphocyte", "monocyte")
    refused(source, "label 1 is lymphocyte", "it is neutrophil", "class_names=PATH", class_names=names, **named)
    write(tmp_path / "classes.csv", "label,name\n1,neutrophil\n2,lymphocyte\n3,monocyte\n")
    named["columns"] += f",class_names={tmp_path / 'classes.csv'}"
    data = read(source, **named)
    assert understood(data)["002.bmp"] == ("lymphocyte", "")
    assert data.class_names == names
    # A run's own names, in another order, decide the order alone.
    assert understood(read(source, class_names=names[::-1], **named)) == understood(data)


def test_medimeta_has_numbered_files_and_labels(tmp_path):
    plant(tmp_path, *(f"images/{i:06d}.tiff" for i in range(4)))
    source = write(
        tmp_path / "annotations.csv",
        ",image_path,cell class,split,original_split\n"
        + "".join(
            f"{i},images/{i:06d}.tiff,{i % 2},{split},train\n"
            for i, split in enumerate(("test", "val", "train", "train"))
        ),
    )
    data = read(source, columns="file=image_path,label=cell class", class_names=("neutrophil", "eosinophil"))
    assert list(understood(data).items()) == [
        ("images/000002.tiff", ("neutrophil", "train")),
        ("images/000003.tiff", ("eosinophil", "train")),
        ("images/000001.tiff", ("eosinophil", "val")),
        ("images/000000.tiff", ("neutrophil", "test")),
    ]
    assert data.columns == {"original_split": ("train",) * 4}


ISIC = "image,MEL,NV,BCC\nISIC_1,0.0,1.0,0.0\nISIC_2,1.0,0.0,0.0\nISIC_3,0.0,0.0,1.0\n"
ISIC_OPTIONS = {"columns": "file=image,label=MEL+NV+BCC", "file_pattern": "{file}.jpg"}


def test_isic_has_a_column_for_each_class(tmp_path):
    plant(tmp_path, "ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg")
    source = write(tmp_path / "truth.csv", ISIC)
    data = read(source, **ISIC_OPTIONS)
    assert data.class_names == ("MEL", "NV", "BCC")
    assert understood(data) == {"ISIC_1.jpg": ("NV", ""), "ISIC_2.jpg": ("MEL", ""), "ISIC_3.jpg": ("BCC", "")}
    assert data.columns == {}
    for rows in ("ISIC_1,1.0,1.0,0.0\nISIC_2,0.0,0.0,0.0\n", "ISIC_1,1,1,0\nISIC_2,0,0,0\n"):
        bad = write(tmp_path / "bad.csv", "image,MEL,NV,BCC\nISIC_3,0,0,1\n" + rows)
        refused(bad, "2 of 3", "line 3: 1 in MEL and NV", "line 4", "--skip_bad", **ISIC_OPTIONS)
        assert understood(read(bad, skip_bad=True, **ISIC_OPTIONS)) == {"ISIC_3.jpg": ("BCC", "")}
    soft = write(tmp_path / "soft.csv", ISIC.replace("0.0,1.0,0.0", "0.3,0.7,0.0"))
    refused(soft, "1 rows", "line 2", "'0.3'", **ISIC_OPTIONS)


# How a table is written.


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiters_ends_of_lines_and_encodings(cells, delimiter, end, encoding):
    text = ROWS.replace(",", delimiter).replace("\n", end)
    source = write(cells / f"cells.{'tsv' if delimiter == chr(9) else 'csv'}", text, encoding)
    assert understood(read(source.removeprefix("csv:"))) == UNDERSTOOD


def test_json_lines_say_the_same(cells):
    rows = [dict(zip(("file", "label"), line.split(","), strict=True)) for line in ROWS.splitlines()[1:]]
    rows[1]["size"] = 3
    data = read(write(cells / "cells.jsonl", "\n".join(map(json.dumps, rows)))[4:])
    assert understood(data) == UNDERSTOOD
    assert data.columns == {"size": ("", "3", "", "")}


def test_quoted_cells_and_cells_that_say_nothing(tmp_path):
    plant(tmp_path, "a,1.png", "b.png")
    source = write(tmp_path / "t.csv", ' File ,LABEL,note\n"a,1.png",x,"one ""big"", lobed"\n\n,,\nb.png, y ,\n')
    data = read(source)
    assert understood(data) == {"a,1.png": ("x", ""), "b.png": ("y", "")}
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
def test_a_table_that_is_none_is_refused(kind, cells):
    content, words = BROKEN[kind]
    (cells / "t.csv").write_bytes(content)
    refused(f"csv:{cells / 't.csv'}", *words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"file": "b.png", "label": ', ["line 2"]),
        ('["b.png", "y"]', ["line 2", "object"]),
        ('{"file": "b.png", "label": "x", "label": "y"}', ["line 2", "twice"]),
        ("[" * 100_000, ["line 2"]),
        ('{"file": "b.png", "label": NaN}', ["1 of 2", "line 2"]),
        ('{"file": "b.png", "label": null}', ["1 of 2", "line 2"]),
    ],
)
def test_json_that_is_no_row_is_refused(line, words, cells):
    refused(write(cells / "t.jsonl", '{"file": "a.png", "label": "x"}\n' + line), *words)


def test_a_wide_table_keeps_every_column(cells):
    names = [f"n{i}" for i in range(200)]
    rows = "".join(f"{name},{label},{','.join(map(str, range(200)))}\n" for name, label in (("a.png", 0), ("b.png", 1)))
    data = read(write(cells / "t.csv", f"file,label,{','.join(names)}\n{rows}"))
    assert list(data.columns) == names
    assert data.columns["n7"] == ("7", "7")


def test_what_is_no_table_is_refused(cells):
    (cells / "folder.csv").mkdir()
    refused(f"csv:{cells / 'folder.csv'}", "no table")
    os.mkfifo(cells / "pipe.csv")
    refused(f"csv:{cells / 'pipe.csv'}", "no regular file")
    refused(f"csv:{cells / 'absent.csv'}", "no such file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_table_that_may_not_be_read(cells):
    source = write(cells / "t.csv", ROWS)
    (cells / "t.csv").chmod(0)
    refused(source, "t.csv", "ermission")


@pytest.mark.parametrize("text", ["file", "files=a", "file=", "file=a,file=b", "label=a,,"])
def test_columns_that_say_nothing(text, cells):
    refused(write(cells / "t.csv", ROWS), f"data.columns={text}", "group", error=UsageError, columns=text)


def test_columns_are_named(cells):
    source = write(cells / "t.csv", "name,kind,split\na.png,x,test\nb.png,y,test\n")
    named = "file=name,label=kind"
    refused(source, "without train", "split=", columns=named)
    data = read(source, columns=f"{named},split=")
    assert data.splits == {}
    assert data.columns == {"split": ("test", "test")}
    refused(source, "'slide'", "name, kind, split", columns=f"{named},group=slide")
    refused(source, "'kind'", "twice", columns=f"{named},group=kind")
    refused(f"folder:{cells}", "data.columns", "csv:", error=UsageError, columns=named)


# Which labels.


@pytest.mark.parametrize("labels", [("x", "X"), ("x", " x"), ("a b", "a  b"), ("1", "01")])
def test_labels_that_differ_by_little(labels, cells):
    refused(write(cells / "t.csv", f"file,label\na.png,{labels[0]}\nb.png,{labels[1]}\nd.png,z\n"), "differ only")


def test_whole_numbers_may_have_decimals(cells):
    data = read(write(cells / "t.csv", "file,label\na.png,10.0\nb.png,2\nd.png,0.0\n"))
    assert data.class_names == ("0", "2", "10")
    assert understood(data)["a.png"] == ("10", "")
    # Names that are numbers are names: 10 is not the class at place 10.
    named = read(f"csv:{cells / 't.csv'}", class_names=("10", "2", "0"))
    assert understood(named) == understood(data)


@pytest.mark.parametrize(("labels", "odd"), [((0.5, 1), "0.5"), ((-1, 0), "-1"), (("1e-3", 2), "1e-3")])
def test_numbers_that_are_no_labels(labels, odd, cells):
    refused(write(cells / "t.csv", f"file,label\na.png,{labels[0]}\nb.png,{labels[1]}\n"), "'label'", odd)


def test_numbers_count_class_names_and_the_log_says_so(cells, caplog):
    source = write(cells / "t.csv", "file,label\na.png,1\nb.png,0\n")
    data = read(source, class_names=("hem", "all"))
    assert understood(data) == {"a.png": ("all", ""), "b.png": ("hem", "")}
    assert any("0 is hem, 1 is all" in message for message in caplog.messages)
    refused(write(cells / "u.csv", "file,label\na.png,2\nb.png,0\n"), "2 (1 rows)", class_names=("hem", "all"))


def test_unknown_labels_are_counted(cells):
    source = write(cells / "t.csv", ROWS)
    refused(source, "1 labels", "y (2 rows)", "x, z", class_names=("x", "z"))
    write(cells / "names.csv", "label,name\nx,basophil\n")
    refused(source, "y (2 rows)", columns=f"class_names={cells / 'names.csv'}")
    write(cells / "names.csv", "label,name\nx,basophil\ny,basophil\n")
    refused(source, "name: basophil", columns=f"class_names={cells / 'names.csv'}")
    write(cells / "names.csv", "id,title\nx,basophil\n")
    refused(source, "label,name", columns=f"class_names={cells / 'names.csv'}")


@pytest.mark.parametrize("empty", ["", " ", "nan", "NaN", "null"])
def test_rows_without_a_label(empty, cells):
    source = write(cells / "t.csv", f"file,label\na.png,x\nb.png,{empty}\nd.png,y\n")
    refused(source, "1 of 3", "line 3", "--skip_bad")
    data = read(source, skip_bad=True)
    assert list(understood(data)) == ["a.png", "d.png"]
    assert list(data.skipped) == ["line 3"]
    refused(write(cells / "u.csv", "file,label\na.png,\nb.png,\n"), "2 of 2", skip_bad=True)


# Which files.


def test_a_zip_is_a_root(cells):
    source = write(cells.parent / "t.csv", ROWS.replace("sub/", "sub\\"))
    with zipfile.ZipFile(cells.parent / "cells.zip", "w") as archive:
        for path in cells.rglob("*.png"):
            archive.write(path, path.relative_to(cells).as_posix())
        archive.writestr("../e.png", b"")
    data = read(source, root=str(cells.parent / "cells.zip"))
    assert understood(data) == UNDERSTOOD
    assert data.sha256() == read(source, root=str(cells)).sha256()
    refused(source, "data.root", root=str(cells / "absent"))
    refused(source, "data.root", "zip", root=str(cells / "a.png"))


@pytest.mark.parametrize("name", ["../{}/a.png", "sub/../../x.png", "/etc/passwd", "C:\\cells\\a.png", "\\\\pc\\a.png"])
def test_no_path_leaves_the_root(name, cells):
    text = f"file,label\n{name.format(cells.name)},x\nb.png,y\n"
    refused(write(cells / "t.csv", text), "1 of 2", "outside the root", "line 2", skip_bad=True)
    pattern = write(cells / "u.csv", "file,label,dir\na,x,..\nb,y,.\n")
    refused(pattern, "1 of 2", "outside the root", file_pattern="{dir}/{file}.png")


def test_other_spellings_of_a_path(cells):
    plant(cells, "trailing .png", "pla\u0308ttchen.png")
    rows = f"{cells}/a.png,x\n./sub//c.png,x\n b.png ,y\ntrailing .png,y\nplättchen.png,y\n"
    data = read(write(cells / "t.csv", "file,label\n" + rows))
    assert set(data.ids) == {"a.png", "b.png", "sub/c.png", "trailing .png", "pla\u0308ttchen.png"}


MISSING = {
    "A.PNG": ["'A.PNG', no such file", "a.png differs by case"],
    "c.png": ["'c.png', no such file", "'**/{file}'"],
    "a": ["'a', no such file", "'{file}.png'"],
    "sub": ["'sub', a folder"],
    "e.png": ["'e.png', no such file", "data.root"],
    "a.png.png ": ["'a.png.png'"],
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_files_are_counted_and_named(name, cells):
    source = write(cells / "t.csv", f"file,label\n{name},x\nb.png,y\nd.png,x\n")
    refused(source, "1 of 3", "line 2", "--skip_bad", *MISSING[name])
    data = read(source, skip_bad=True)
    assert list(data.ids) == ["b.png", "d.png"]
    assert list(data.skipped) == [name.strip()]


def test_files_that_cannot_be_read_are_left_out_with_their_columns(cells):
    (cells / "b.png").write_bytes(b"no image")
    source = write(cells / "t.csv", "file,label,group,size\na.png,x,p1,1\nb.png,y,p2,2\nd.png,y,p3,3\n")
    refused(source, "1 of 3", "b.png")
    data = read(source, skip_bad=True)
    assert (data.ids, data.groups, data.columns) == (("a.png", "d.png"), ("p1", "p3"), {"size": ("1", "3")})
    assert data.labels.tolist() == [0, 1]


TWICE = {
    "two labels": ("a.png,x,train\nb.png,y,train\na.png,y,train\n", ["1 files", "1 of them", "line 4: train y"]),
    "two splits": ("a.png,x,train\nb.png,y,train\na.png,x,test\n", ["1 files", "1 of them", "line 4: test x"]),
    "one row again": ("a.png,x,train\nb.png,y,train\na.png,x,train\n", ["1 files", "0 of them"]),
    "two spellings": ("a.png,x,train\nb.png,y,train\n./a.png,x,train\n", ["1 files", "a.png (line 2"]),
}


@pytest.mark.parametrize("kind", TWICE)
def test_a_file_has_one_row(kind, cells):
    rows, words = TWICE[kind]
    refused(write(cells / "t.csv", "file,label,split\n" + rows), *words, skip_bad=True)


def test_a_file_in_the_tables_of_two_splits(cells):
    write(cells / "Train.csv", "file,label\na.png,x\nb.png,y\n")
    write(cells / "valid.csv", "file,label\na.png,x\nd.png,y\n")
    refused(f"csv:{cells}", "a.png (Train.csv line 2: train x; valid.csv line 2: val x)")


def test_a_name_that_occurs_in_two_folders_is_refused(cells):
    plant(cells, "other/c.png")
    source = write(cells / "t.csv", "file,label\nc.png,x\nb.png,y\n")
    refused(source, "1 of 2", "2 files match: other/c.png, sub/c.png", file_pattern="**/{file}")


@pytest.mark.parametrize(
    "pattern",
    [
        *("{file.__class__}", "{file[0]}", "{file!r}", "{file:>99999}", "{file:{label}}", "{file:0999d}", "{0}", "{}"),
        *("{nothing}/{file}", "a.png", "{file}/x.png", "{file", "**", "{file}*", "{file:d}/*"),
    ],
)
def test_only_columns_and_widths_stand_in_a_pattern(pattern, cells):
    refused(write(cells / "t.csv", ROWS), "data.file_pattern=", error=UsageError, file_pattern=pattern)


def test_patterns_fill_in_columns(cells):
    pattern = parse_file_pattern("{kind}/{{x}}_{file:03d}.png", {"kind": [], "file": []})
    assert pattern.path({"kind": "a", "file": " 7.0 "}) == "a/{x}_007.png"
    source = write(cells / "t.csv", "file,label\n1,x\nseven,y\n")
    refused(source, "1 of 2", "line 3: 'seven' is no whole number", file_pattern="{file:03d}.png")
    # Signs of patterns in cells are no patterns.
    plant(cells, "a*.png")
    data = read(write(cells / "u.csv", "file,label\na*,x\nd,y\n"), file_pattern="**/{file}.png")
    assert set(data.ids) == {"a*.png", "d.png"}


def test_include_and_exclude_choose_rows(cells):
    source = write(cells / "t.csv", ROWS + "unlabeled/1.png,\n")
    data = read(source, exclude="sub/**,unlabeled/**")
    assert set(data.ids) == {"a.png", "b.png", "d.png"}
    assert data.left_out["by data.include and data.exclude"] == 2


# Splits and groups.


def test_splits_have_usual_names_in_any_case(cells):
    text = "file,label,split\nb.png,y,TEST\na.png,x,Training\nd.png,y,train \nsub/c.png,x,Validation\n"
    source = write(cells / "t.csv", text.replace("train ", "Training"))
    assert list(understood(read(source)).items()) == [
        ("a.png", ("x", "train")),
        ("d.png", ("y", "train")),
        ("sub/c.png", ("x", "val")),
        ("b.png", ("y", "test")),
    ]
    refused(write(cells / "u.csv", text.replace("TEST", "TestA")), "TestA (1 rows)", "data.split_folders")
    refused(write(cells / "v.csv", text.replace("TEST", "")), "1 of 4", "line 2")
    refused(source, "'Nothing'"[1:-1], split_folders="train=Nothing")
    assert read(write(cells / "w.csv", "file,label,split\na.png,x,\nb.png,y,\n")).splits == {}


def test_a_table_and_its_column_must_agree(cells):
    write(cells / "train.csv", "file,label,split\na.png,x,train\nb.png,y,val\n")
    refused(f"csv:{cells}", "1 rows", "train.csv line 3")
    write(cells / "train.csv", "file,label,split\na.png,x,train\nb.png,y,train\n")
    write(cells / "val.csv", "file,label\nd.png,x\n")
    refused(f"csv:{cells}", "1 of 3", "val.csv line 2")
    write(cells / "TRAINING.csv", ROWS)
    refused(f"csv:{cells}", "TRAINING.csv, train.csv", "all train", "data.exclude")


def test_groups_are_complete(cells):
    source = write(cells / "t.csv", "file,label,patient\na.png,x,p 1\nb.png,y,p2\nd.png,y,\n")
    refused(source, "1 of 3", "line 4", "group", columns="group=patient")
    data = read(source, columns="group=patient", exclude="d.png")
    assert data.groups == ("p 1", "p2")
    assert data.columns == {}
    # One patient under two names would be in two splits.
    for one, other in (("P1", "p1"), ("1", "01")):
        refused(write(cells / "u.csv", f"file,label,group\na.png,x,{one}\nb.png,y,{other}\n"), "groups differ only")
    assert read(write(cells / "v.csv", "file,label,group\na.png,x,7.0\nb.png,y,7\n")).groups == ("7", "7")
