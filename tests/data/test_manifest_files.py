"""The files that a manifest names: found below the root and nowhere else, or counted and named."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.data.manifest.columns import parse_file_pattern
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.errors import UsageError

ROWS = "file,label\na.png,x\nb.png,y\nsub/c.png,x\nd.png,y\n"
UNDERSTOOD = {"a.png": ("x", ""), "b.png": ("y", ""), "d.png": ("y", ""), "sub/c.png": ("x", "")}


def test_a_zip_is_a_root(manifest, four_images):
    source = manifest.write(four_images.parent / "t.csv", ROWS.replace("sub/", "sub\\"))
    with zipfile.ZipFile(four_images.parent / "cells.zip", "w") as archive:
        for path in four_images.rglob("*.png"):
            archive.write(path, path.relative_to(four_images).as_posix())
        archive.writestr("../e.png", b"")
    data = manifest.read(source, root=str(four_images.parent / "cells.zip"))
    assert manifest.understood(data) == UNDERSTOOD
    assert data.sha256() == manifest.read(source, root=str(four_images)).sha256()
    manifest.refused(source, "data.root", root=str(four_images / "absent"))
    manifest.refused(source, "data.root", "zip", root=str(four_images / "a.png"))


def test_a_path_leads_into_zips_below_the_root(manifest, four_images):
    for name, member in (("one.zip", "deep/a.png"), ("two.dat", "b.png")):
        with zipfile.ZipFile(four_images / name, "w") as archive:
            archive.write(four_images / member.rpartition("/")[2], member)
            archive.writestr("more.png", b"")
    (four_images / "broken.zip").write_bytes(b"no zip")
    rows = "file,label\none.zip/deep/a.png,x\n./two.dat/b.png,y\nsub\\c.png,x\nd.png,y\n"
    source = manifest.write(four_images / "t.csv", rows)
    data = manifest.read(source)
    assert list(data.ids) == ["d.png", "one.zip/deep/a.png", "sub/c.png", "two.dat/b.png"]
    assert data.left_out == {"not named by the manifest": 4, "no images by their suffix .zip": 1}
    plain = manifest.read(manifest.write(four_images / "u.csv", ROWS))
    for inside, outside in (("one.zip/deep/a.png", "a.png"), ("two.dat/b.png", "b.png")):
        np.testing.assert_array_equal(data.images[data.ids.index(inside)], plain.images[plain.ids.index(outside)])
    pattern = manifest.write(four_images / "v.csv", "file,label\na,x\n")
    assert manifest.read(pattern, file_pattern="one.zip/deep/{file}.png").ids == ("one.zip/deep/a.png",)
    for name, words in (
        ("one.zip/none.png", "no such file"),
        ("a.png/b.png", "no such file"),
        ("one.zip/deep", "folder"),
    ):
        manifest.refused(manifest.write(four_images / "w.csv", f"file,label\n{name},x\nb.png,y\n"), "1 of 2", words)
    broken = manifest.write(four_images / "w.csv", "file,label\nbroken.zip/b.png,y\n")
    manifest.refused(broken, "broken.zip", "zip archive")


@pytest.mark.parametrize("name", ["../{}/a.png", "sub/../../x.png", "/etc/passwd", "C:\\cells\\a.png", "\\\\pc\\a.png"])
def test_no_path_leaves_the_root(manifest, name, four_images):
    text = f"file,label\n{name.format(four_images.name)},x\nb.png,y\n"
    manifest.refused(manifest.write(four_images / "t.csv", text), "1 of 2", "outside the root", "line 2", skip_bad=True)
    pattern = manifest.write(four_images / "u.csv", "file,label,dir\na,x,..\nb,y,.\n")
    manifest.refused(pattern, "1 of 2", "outside the root", file_pattern="{dir}/{file}.png")


def test_other_spellings_of_a_path(manifest, four_images):
    manifest.plant(four_images, "trailing .png", "pla\u0308ttchen.png")
    rows = f"{four_images}/a.png,x\n./sub//c.png,x\n b.png ,y\ntrailing .png,y\nplättchen.png,y\n"
    data = manifest.read(manifest.write(four_images / "t.csv", "file,label\n" + rows))
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
def test_missing_files_are_counted_and_named(manifest, name, four_images):
    source = manifest.write(four_images / "t.csv", f"file,label\n{name},x\nb.png,y\nd.png,x\n")
    manifest.refused(source, "1 of 3", "line 2", "--skip_bad", *MISSING[name])
    data = manifest.read(source, skip_bad=True)
    assert list(data.ids) == ["b.png", "d.png"]
    assert list(data.skipped) == [name.strip()]


def test_files_that_cannot_be_read_are_left_out_with_their_columns(manifest, four_images):
    (four_images / "b.png").write_bytes(b"no image")
    source = manifest.write(four_images / "t.csv", "file,label,group,size\na.png,x,p1,1\nb.png,y,p2,2\nd.png,y,p3,3\n")
    manifest.refused(source, "1 of 3", "b.png")
    data = manifest.read(source, skip_bad=True)
    assert (data.ids, data.groups, data.columns) == (("a.png", "d.png"), ("p1", "p3"), {"size": ("1", "3")})
    assert data.labels.tolist() == [0, 1]


TWICE = {
    "two labels": ("a.png,x,train\nb.png,y,train\na.png,y,train\n", ["1 files", "1 of them", "line 4: train y"]),
    "two splits": ("a.png,x,train\nb.png,y,train\na.png,x,test\n", ["1 files", "1 of them", "line 4: test x"]),
    "one row again": ("a.png,x,train\nb.png,y,train\na.png,x,train\n", ["1 files", "0 of them"]),
    "two spellings": ("a.png,x,train\nb.png,y,train\n./a.png,x,train\n", ["1 files", "a.png (line 2"]),
}


@pytest.mark.parametrize("kind", TWICE)
def test_a_file_has_one_row(manifest, kind, four_images):
    rows, words = TWICE[kind]
    manifest.refused(manifest.write(four_images / "t.csv", "file,label,split\n" + rows), *words, skip_bad=True)


def test_a_file_in_the_tables_of_two_splits(manifest, four_images):
    manifest.write(four_images / "Train.csv", "file,label\na.png,x\nb.png,y\n")
    manifest.write(four_images / "valid.csv", "file,label\na.png,x\nd.png,y\n")
    manifest.refused(f"csv:{four_images}", "a.png (Train.csv line 2: train x; valid.csv line 2: val x)")


def test_a_name_that_occurs_in_two_folders_is_refused(manifest, four_images):
    manifest.plant(four_images, "other/c.png")
    source = manifest.write(four_images / "t.csv", "file,label\nc.png,x\nb.png,y\n")
    manifest.refused(source, "1 of 2", "2 files match: other/c.png, sub/c.png", file_pattern="**/{file}")


@pytest.mark.parametrize(
    "pattern",
    [
        *("{file.__class__}", "{file[0]}", "{file!r}", "{file:>99999}", "{file:{label}}", "{file:0999d}", "{0}", "{}"),
        *("{nothing}/{file}", "a.png", "{file}/x.png", "{file", "**", "{file}*", "{file:d}/*"),
    ],
)
def test_only_columns_and_widths_stand_in_a_pattern(manifest, pattern, four_images):
    manifest.refused(
        manifest.write(four_images / "t.csv", ROWS), "data.file_pattern=", error=UsageError, file_pattern=pattern
    )


def test_patterns_fill_in_columns(manifest, four_images):
    pattern = parse_file_pattern("{kind}/{{x}}_{file:03d}.png", {"kind": [], "file": []})
    assert pattern.path({"kind": "a", "file": " 7.0 "}) == "a/{x}_007.png"
    source = manifest.write(four_images / "t.csv", "file,label\n1,x\nseven,y\n")
    manifest.refused(source, "1 of 2", "line 3: 'seven' is no whole number", file_pattern="{file:03d}.png")
    # The folder around everything, as archives have it, is any folder.
    manifest.plant(four_images, "wrapped/in/e.png")
    data = manifest.read(
        manifest.write(four_images / "t.csv", "file,label\nin/e.png,x\nc.png,y\n"), file_pattern="**/{file}"
    )
    assert set(data.ids) == {"wrapped/in/e.png", "sub/c.png"}
    # Signs of patterns in cells are no patterns.
    manifest.plant(four_images, "a*.png")
    data = manifest.read(manifest.write(four_images / "u.csv", "file,label\na*,x\nd,y\n"), file_pattern="**/{file}.png")
    assert set(data.ids) == {"a*.png", "d.png"}


def test_include_and_exclude_choose_rows(manifest, four_images):
    source = manifest.write(four_images / "t.csv", ROWS + "unlabeled/1.png,\n")
    data = manifest.read(source, exclude="sub/**,unlabeled/**")
    assert set(data.ids) == {"a.png", "b.png", "d.png"}
    assert data.left_out["by data.include and data.exclude"] == 2


def test_a_column_of_scales_shows_the_same_piece_of_the_slide(manifest, tmp_path):
    slide = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name, zoom in (("fine", 8), ("coarse", 4)):
        Image.fromarray(slide).resize((64 * zoom, 64 * zoom), Image.Resampling.NEAREST).save(tmp_path / f"{name}.png")
    rows = "file,label,scale\nfine.png,a,0.1\ncoarse.png,b,{}\n"
    source = manifest.write(tmp_path / "cells.csv", rows.format(0.2))
    data = manifest.read(source, microns_per_pixel="scale")
    assert data.sides.tolist() == [100, 200]  # ordered by path: coarse, fine
    assert np.abs(data.images[0].astype(int) - data.images[1]).mean() < 4
    assert manifest.read(source).sides.tolist() == [256, 512]
    for cell in ("", "x", "0", "-1", "nan", "inf"):
        manifest.write(tmp_path / "cells.csv", rows.format(cell))
        manifest.refused(source, "'scale'", "1 cells", repr(cell), microns_per_pixel="scale")
    manifest.refused(source, "'size'", "scale", microns_per_pixel="size")
    with pytest.raises(UsageError, match="microns_per_pixel=scale"):
        load_source("synthetic:24", microns_per_pixel="scale")
