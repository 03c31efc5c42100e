"""Hostile and broken archives, folders and files: read right, or named with the reason; none disappears silently."""

import io
import json
import logging
import os
import re
import stat
import struct
import unicodedata
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax import cli
from bloodcell_jax.config import Config, DataConfig
from bloodcell_jax.data import image_files
from bloodcell_jax.data.file_trees import MAX_FILE_BYTES, UnreadableFile
from bloodcell_jax.data.geometry import Geometry
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.errors import DataError
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.environment import describe_environment

SIZE = 16
PIXELS = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def encoded(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def fill(root, classes=("a", "b"), count=4):
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            noise = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            (root / name / f"{i}.png").write_bytes(encoded(noise))


def archive_of(path, entries, *, good=True):
    """Write a zip of (name or ZipInfo, content) after three good images of each of two classes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a", "b") if good else ():
            for i in range(3):
                archive.writestr(f"{name}/{i}.png", encoded(PIXELS // (i + 1)))
        for name, content in entries:
            archive.writestr(name, content)
    return f"zip:{path}"


def load(source, **options):
    return load_source(str(source), image_size=SIZE, **options)


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


HOSTILE = {
    "traversal": (("../../a/evil.png", encoded(PIXELS)), "its path leads out of the archive"),
    "traversal inside": (("a/../../../evil.png", encoded(PIXELS)), "its path leads out of the archive"),
    "backslashes": (("..\\..\\evil.png", encoded(PIXELS)), "its path leads out of the archive"),
    "absolute": (("/etc/evil.png", encoded(PIXELS)), "its path leads out of the archive"),
    "drive": (("C:\\a\\evil.png", encoded(PIXELS)), "its path leads out of the archive"),
    "link": ((link("a/evil.png"), "/etc/passwd"), "a symbolic link"),
    "bomb": (("a/evil.png", bytes(MAX_FILE_BYTES + 1)), "100 MiB; an image file may have at most 100"),
    "empty": (("a/evil.png", b""), "an empty file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_entry_is_named_and_may_be_skipped(case, tmp_path, caplog):
    entry, reason = HOSTILE[case]
    source = archive_of(tmp_path / "cells.zip", [entry])
    with pytest.raises(DataError, match=r"\b1 of 7 images .*: \S*evil\.png") as caught:
        load(source)
    assert reason in str(caught.value)
    assert "--skip_bad" in str(caught.value)
    data = load(source, skip_bad=True)
    assert data.class_names == ("a", "b")
    assert data.class_counts().tolist() == [3, 3]
    (name,) = data.skipped
    assert name.endswith("evil.png")
    assert data.skipped[name] == reason
    assert re.search(rf"{re.escape(name)} skipped \({re.escape(reason)}\)", caplog.text)
    assert re.search(r"\b1 of 7 images .*left out", caplog.text)
    # Nothing was written anywhere, and the rest is the same as in a clean archive.
    assert [path.name for path in tmp_path.iterdir()] == ["cells.zip"]
    assert data.sha256() == load(archive_of(tmp_path / "clean.zip", [])).sha256()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_neither_of_its_images(tmp_path):
    entries = [("a/twice.png", encoded(PIXELS)), ("a/twice.png", encoded(255 - PIXELS))]
    data = load(archive_of(tmp_path / "cells.zip", entries), skip_bad=True)
    assert list(data.skipped) == ["a/twice.png"]
    assert " 2 times " in data.skipped["a/twice.png"]
    assert len(data) == 6


def test_entries_that_share_bytes_are_a_bomb(tmp_path):
    archive_of(tmp_path / "cells.zip", [])
    content = (tmp_path / "cells.zip").read_bytes()
    # Every entry of the directory begins at the place of the first one.
    with zipfile.ZipFile(tmp_path / "cells.zip") as archive:
        start, second = archive.start_dir, archive.infolist()[1].header_offset
    directory = content[start:].replace(struct.pack("<I", second) + b"a/1.png", bytes(4) + b"a/1.png")
    assert directory != content[start:]
    (tmp_path / "cells.zip").write_bytes(content[:start] + directory)
    with pytest.raises(DataError, match=r"cells\.zip: .*overlap.*zip bomb"):
        load(f"zip:{tmp_path / 'cells.zip'}", skip_bad=True)


def test_an_encrypted_archive_says_so(tmp_path):
    source = archive_of(tmp_path / "cells.zip", [])
    content = bytearray((tmp_path / "cells.zip").read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(mark, at + 4)
    (tmp_path / "cells.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"\b6 of 6 images .*password"):
        load(source, skip_bad=True)


def test_names_in_any_script_and_any_zip(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Blutplättchen") for form in ("NFC", "NFD"))
    entries = [(f"{composed}/血.png", encoded(PIXELS)), (f"{decomposed}/2.png", encoded(PIXELS))]
    source = archive_of(tmp_path / "cells.zip", entries)
    data = load(source)
    assert data.class_names == (composed, "a", "b")
    assert data.class_counts().tolist() == [2, 3, 3]
    # The Mac's own archiver does not set the mark that the names are UTF-8.
    content = (tmp_path / "cells.zip").read_bytes()
    for mark, offset in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        parts = content.split(mark)
        content = mark.join([parts[0], *(p[: offset - 4] + b"\0" + p[offset - 3 :] for p in parts[1:])])
    (tmp_path / "cells.zip").write_bytes(content)
    assert load(source).sha256() == data.sha256()
    windows = [(name.replace("/", "\\"), image) for name, image in entries]
    assert load(archive_of(tmp_path / "windows.zip", windows)).sha256() == data.sha256()


def test_file_names_that_are_no_text_are_read_and_shown(tmp_path):
    fill(tmp_path / "cells")
    place = os.fsencode(tmp_path / "cells" / "a") + b"/caf\xe9.png"
    with open(place, "wb") as file:
        file.write(encoded(PIXELS))
    (tmp_path / "cells" / "a" / "two\nlines.png").write_bytes(encoded(PIXELS))
    data = load(f"folder:{tmp_path / 'cells'}")
    assert {"a/caf\\xe9.png", "a/two\\nlines.png"} <= set(data.ids)
    assert len(data.sha256()) == 64


def test_links_in_a_folder_are_followed_once(tmp_path):
    fill(tmp_path / "elsewhere")
    (tmp_path / "cells").mkdir()
    for name in ("a", "b"):
        (tmp_path / "cells" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere" / "a" / "round").symlink_to(tmp_path / "elsewhere")
    data = load(f"folder:{tmp_path / 'cells'}")
    assert data.ids == tuple(f"{name}/{i}.png" for name in ("a", "b") for i in range(4))
    (tmp_path / "cells" / "a" / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "cells" / "b" / "pipe.png")
    data = load(f"folder:{tmp_path / 'cells'}", skip_bad=True)
    assert data.skipped == {"a/gone.png": "a link to nothing", "b/pipe.png": "a pipe"}


def test_a_folder_that_several_links_lead_to_is_read_once(tmp_path, caplog):
    fill(tmp_path / "cells")
    (tmp_path / "cells" / "a" / "x").symlink_to("../b")
    (tmp_path / "cells" / "b" / "y").symlink_to("../a")
    fill(tmp_path / "store", ("c",))
    (tmp_path / "cells" / "c").symlink_to(tmp_path / "store" / "c")
    (tmp_path / "cells" / "c again").symlink_to(tmp_path / "store" / "c")
    data = load(f"folder:{tmp_path / 'cells'}")
    assert data.ids == tuple(f"{name}/{i}.png" for name in ("a", "b", "c") for i in range(4))
    assert all(f"{name}: left out" in caplog.text for name in ("a/x", "b/y", "c again"))


def test_a_link_to_a_hidden_folder_is_followed(tmp_path):
    fill(tmp_path / "cells" / ".store")
    for name in ("a", "b"):
        (tmp_path / "cells" / name).symlink_to(f".store/{name}")
    assert len(load(f"folder:{tmp_path / 'cells'}")) == 8


def test_every_folder_that_differs_from_the_configuration_is_named(tmp_path):
    fill(tmp_path / "cells", ("a", "b", "c"))
    with pytest.raises(DataError, match=r"folders b, c are not .*data\.class_names \(a, B, C\).* B, C have no folder"):
        load(f"folder:{tmp_path / 'cells'}", class_names=("a", "B", "C"))


def test_files_that_are_no_images_are_mentioned(tmp_path, caplog):
    fill(tmp_path / "cells")
    (tmp_path / "cells" / "a" / "scan.czi").write_bytes(b"x")
    with caplog.at_level(logging.INFO, "bloodcell_jax"):
        load(f"folder:{tmp_path / 'cells'}")
    assert re.search(r"ignored \(\.czi: 1\)", caplog.text)


def test_a_multitude_of_empty_files(tmp_path):
    """The test has 5,000 files; 100,000 differ only in the seconds they take."""
    count = 5_000
    source = archive_of(tmp_path / "cells.zip", [(f"a/{i:06}.jpg", b"") for i in range(count)])
    with pytest.raises(DataError, match=r"\b5,000 of 5,006 images .*: a/000000\.jpg.* 4,995 more"):
        load(source)
    data = load(source, skip_bad=True)
    assert len(data) == 6
    assert len(data.skipped) == count
    only = archive_of(tmp_path / "only.zip", [(f"a/{i:06}.jpg", b"") for i in range(100)], good=False)
    with pytest.raises(DataError, match=r"\b100 of 100 images "):
        load(only, skip_bad=True)


def test_a_class_without_readable_images_is_not_skipped_silently(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "cells")
    (tmp_path / "cells" / "c").mkdir()
    (tmp_path / "cells" / "c" / "0.png").write_bytes(b"")
    command = ["bloodcell", "train", "--config=quickstart", "--workdir=run", "--config.data.source=folder:cells"]
    assert cli.main([*command, "--skip_bad"]) == 3
    errors = capsys.readouterr().err.splitlines()
    assert any(re.search(r"c/0\.png .*\(an empty file\)", line) for line in errors)
    assert "class c " in errors[-1]


def test_a_run_keeps_what_it_skipped(tmp_path):
    fill(tmp_path / "cells")
    (tmp_path / "cells" / "a" / "bad.png").write_bytes(b"")
    config = Config()
    config.data = DataConfig(source=f"folder:{tmp_path / 'cells'}", image_size=32, skip_bad=True)
    assert describe_environment(create_run(config))["data"]["skipped"] == {"a/bad.png": "an empty file"}


def test_evaluation_of_another_source_skips_when_asked(trained, tmp_path, capsys):
    fill(tmp_path / "cells", ("red", "green"))
    (tmp_path / "cells" / "red" / "bad.png").write_bytes(b"")
    command = ["bloodcell", "evaluate", f"--workdir={trained}", f"--source=folder:{tmp_path / 'cells'}"]
    command += [f"--output={tmp_path / 'results'}"]
    assert cli.main(command) == 3
    assert re.search(r"\b1 of 9 images .*: red/bad\.png \(an empty file\)", capsys.readouterr().err)
    assert cli.main([*command, "--skip_bad"]) == 0
    assert json.loads((tmp_path / "results" / "metrics.json").read_text())["n"] == 8


def test_more_pixels_than_a_file_may_have_are_refused_whatever_warnings_do(tmp_path):
    """A WebP of 752 bytes that claimed 134 million pixels took 2.2 GB where somebody had turned warnings off."""
    content = encoded(PIXELS)
    huge = bytearray(content)
    huge[16:24] = struct.pack(">II", 16384, 8192)
    huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UnreadableFile, match=r"16,384 x 8,192 pixels; at most 89,478,485"):
            image_files.decode(bytes(huge), "huge.png", Geometry(8))
        assert image_files.decode_sized(content, "small.png", Geometry(8)).width == SIZE
