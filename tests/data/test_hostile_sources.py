"""Sources from anywhere: each hostile file is one line or a bad image, at once and in bounded memory."""

import bz2
import io
import json
import lzma
import os
import socket
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax import cli
from bloodcell_jax.data.audit.findings import audit
from bloodcell_jax.data.cleaning import remove_rows
from bloodcell_jax.data.example_index import ExampleIndex, Names
from bloodcell_jax.data.file_trees import example_id
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.errors import UserError
from bloodcell_jax.report.audit_page import write_audit

SIZE = 16
RNG = np.random.default_rng(0)


def encoded(kind="png"):
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def load(source, **options):
    return load_source(str(source), image_size=SIZE, **options)


def refused(source, *words, **options):
    for skip_bad in (False, True):
        with pytest.raises(UserError) as caught:
            load(source, skip_bad=skip_bad, **options)
        (line,) = str(caught.value).splitlines()
        for word in words:
            assert word in line


def fill(root, name=b"0.png"):
    """Write two classes of three images, and one more in `a` under a name of any bytes."""
    for folder in ("a", "b"):
        (root / folder).mkdir(parents=True)
        for i in range(1, 4):
            (root / folder / f"{i}.png").write_bytes(encoded())
    with open(os.path.join(os.fsencode(root / "a"), name), "wb") as file:
        file.write(encoded())
    return root


def zip_of(path, entries, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
            archive.writestr(name, encoded())
        for name, content in entries:
            archive.writestr(name, content)
    return path


def renamed(path, old, new):
    """Change a name in an archive to any bytes of the same length, marked as UTF-8."""
    content = path.read_bytes().replace(old, new)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        changed = bytearray(content)
        at = content.find(mark)
        while at >= 0:
            (flags,) = struct.unpack_from("<H", changed, at + offset)
            struct.pack_into("<H", changed, at + offset, flags | 0x800)
            at = content.find(mark, at + 4)
        content = bytes(changed)
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["npz", "zip", "csv", "medmnist", "folder"])
def test_what_is_no_regular_file_is_not_opened(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    refused(f"{kind}:pipe", f"{kind}:pipe: ")
    refused(f"{kind}:/dev/zero", f"{kind}:/dev/zero: ")
    refused(f"{kind}:{'x' * 300}", "x" * 300)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        refused(f"{kind}:socket", f"{kind}:socket: ")
    refused(f"{kind}:~nobody-has-this-name/x", "~nobody-has-this-name/x")
    if kind not in ("folder", "csv"):
        refused(f"{kind}:{tmp_path}", "a folder")


def test_files_beside_a_source_are_regular_too(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "bloodmnist.npz")
    table = fill(tmp_path / "cells") / "table.csv"
    table.write_text("file,label\na/1.png,x\nb/1.png,y\n")
    refused(f"csv:{table}", "a pipe", columns=f"class_names={tmp_path / 'pipe'}")
    refused(f"csv:{table}", "a pipe", root=str(tmp_path / "pipe"))
    refused(f"csv:{table}", "too long", root="x" * 300)
    refused("medmnist:bloodmnist", "a pipe", data_dir=str(tmp_path))
    with pytest.raises(UserError, match="a pipe"):
        remove_rows(load(f"csv:{table}"), tmp_path / "pipe")


def test_names_that_are_not_utf_8_work_from_the_source_to_the_clean_list(tmp_path):
    root = fill(tmp_path / "cells", b"caf\xe9.png")
    (root / "b" / "caf\\xe9.png").write_bytes(encoded())
    (root / "a" / "caf\\xe9.png").write_bytes((root / "a" / "1.png").read_bytes())
    data = load(f"folder:{root}")
    assert len(set(data.ids)) == len(data) == 9
    assert "a/caf\\xe9.png" in data.ids
    assert all(name.isprintable() for name in data.ids)
    found = audit(data)
    write_audit(found, tmp_path / "audit")
    (removal,) = json.loads((tmp_path / "audit" / "clean.json").read_text())["remove"]
    assert removal["id"] in ("a/1.png", "a/caf\\\\xe9.png")
    assert removal["id"] not in remove_rows(data, tmp_path / "audit" / "clean.json").ids
    # In a table the id stands for such a file, unless another file has the id as its name.
    (root / "a" / "caf\\xe9.png").unlink()
    data, table = load(f"folder:{root}", exclude="b/caf*"), tmp_path / "table.csv"
    table.write_text("file,label\n" + "".join(f"{name},{name[0]}\n" for name in data.ids))
    assert load(f"csv:{table}", root=str(root)).sha256() == data.sha256()


def test_an_audit_of_a_folder_whose_own_name_is_not_utf_8(tmp_path, monkeypatch):
    root = fill(tmp_path / os.fsdecode(b"caf\xe9"))
    with (tmp_path / "out").open("w", encoding="utf-8", errors="strict") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        command = ["bloodcell", "audit", f"--source=folder:{root}", f"--output={tmp_path / 'audit'}"]
        assert cli.main([*command, f"--image_size={SIZE}"]) == 0
    printed = (tmp_path / "out").read_text(encoding="utf-8")
    assert rf"--config.data.source=folder:{tmp_path}/caf\xe9'" in printed, "as a shell reads it"
    assert (tmp_path / "audit" / "index.html").is_file()


def test_names_in_a_zip_that_are_not_utf_8(tmp_path):
    path = zip_of(tmp_path / "cells.zip", [("a/cafe.png", encoded())])
    renamed(path, b"cafe.png", b"caf\xe9.png")
    data = load(f"zip:{path}")
    assert len(data) == 5
    assert all(name.isprintable() for name in data.ids)
    table = tmp_path / "table.csv"
    table.write_text("file,label\n" + "".join(f"{name},{name[0]}\n" for name in data.ids), encoding="utf-8")
    assert load(f"csv:{table}", root=str(path)).ids == data.ids


def test_ids_are_one_to_one():
    names = ["a/\udce9.png", "a/\\xe9.png", "a/\\\\xe9.png", "a/\n.png", "a/\\n.png"]
    assert len({example_id(type("P", (), {"__str__": lambda self, n=name: n})()) for name in names}) == len(names)


def test_an_entry_without_a_name(tmp_path):
    path = zip_of(tmp_path / "cells.zip", [("x", b"")])
    content = path.read_bytes()
    for mark, offset in ((b"PK\x03\x04", 26), (b"PK\x01\x02", 28)):
        at = content.rfind(mark)
        # The one letter of the name becomes an extra field.
        content = content[: at + offset] + struct.pack("<HH", 0, 1) + content[at + offset + 4 :]
    path.write_bytes(content)
    assert len(load(f"zip:{path}")) == 4


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_a_damaged_entry_is_a_bad_image_whatever_packed_it(method, tmp_path):
    path = zip_of(tmp_path / "cells.zip", [("a/bad.png", bytes(range(256)) * 40)], method)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("a/bad.png")
    content = bytearray(path.read_bytes())
    at = info.header_offset + 30 + len("a/bad.png")
    content[at + 4 : at + info.compress_size] = RNG.bytes(info.compress_size - 4)
    path.write_bytes(content)
    data = load(f"zip:{path}", skip_bad=True)
    assert list(data.skipped) == ["a/bad.png"]
    assert len(data) == 4


@pytest.mark.parametrize(("method", "pack"), [(zipfile.ZIP_BZIP2, bz2.compress), (zipfile.ZIP_LZMA, lzma.compress)])
def test_an_entry_unpacks_to_no_more_than_it_claims(method, pack, tmp_path):
    path = zip_of(tmp_path / "cells.zip", [("a/bomb.png", bytes(2**27))], method)
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 2**27), struct.pack("<I", 2**16)))
    assert list(load(f"zip:{path}", skip_bad=True).skipped) == ["a/bomb.png"]


def npz_of(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return f"npz:{path}"


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


IMAGES, LABELS = RNG.integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8), np.arange(4) % 2


def test_members_of_an_npz_that_are_no_arrays(tmp_path):
    path = tmp_path / "cells.npz"
    refused(npz_of(path, {"images": b"text", "labels.npy": npy(LABELS)}), "images is no array")
    refused(npz_of(path, {"images.npy": npy(IMAGES), "labels": b""}), "labels is no array")
    header = npy(IMAGES)[:128]
    huge = header.replace(b"(4, 16, 16, 3), }" + b" " * 12, b"(9999999999, 16, 16, 3), }   ")
    assert huge != header
    refused(npz_of(path, {"images.npy": huge, "labels.npy": npy(LABELS)}), "cells.npz")
    source = npz_of(path, {"images": npy(IMAGES), "labels.npy": npy(LABELS)})
    assert audit(load(source)).sha256


TABLES = {
    "deep": '{"file": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "half deep": '{"file": ' + "[" * 900 + "]" * 900 + "}",
    "many keys": "\n".join(json.dumps({f"key{i}": 1}) for i in range(20_000)),
    "digits": '{"file": ' + "9" * 5000 + "}",
    "a half of a character": '{"file": "\\ud800", "label": "x"}',
    "a NUL": '{"file": "a\\u0000.png", "label": "x"}',
    "a long name": json.dumps({"file": "a" * 300, "label": "x"}),
    "lists": '{"file": ["a"], "label": {"x": 1}}',
}


@pytest.mark.parametrize("case", TABLES)
def test_json_lines(case, tmp_path):
    (tmp_path / "table.jsonl").write_text(TABLES[case])
    refused(f"csv:{tmp_path / 'table.jsonl'}", "table.jsonl: ")


@pytest.mark.parametrize("content", ["", "\n \n", ",,,\n", '""\n'])
def test_a_table_of_nothing(content, tmp_path):
    (tmp_path / "table.csv").write_text(content)
    refused(f"csv:{tmp_path / 'table.csv'}", "is empty")


def test_a_table_whose_rows_lack_now_the_file_and_now_the_label(tmp_path):
    root = fill(tmp_path / "cells")
    (root / "table.csv").write_text("file,label\na/1.png,\nb/absent.png,b\n")
    refused(f"csv:{root / 'table.csv'}", "table.csv: ")


def test_numbers_of_many_digits_in_a_table(tmp_path):
    root = fill(tmp_path / "cells")
    (root / "table.csv").write_text(f"file,label\n{'9' * 5000},a\n")
    refused(f"csv:{root / 'table.csv'}", "no such file")


CLEAN = {
    "deep": "[" * 100_000,
    "half deep": '{"remove": [' + "[" * 990 + "]" * 990 + "]}",
    "digits": '{"remove": [{"index": ' + "9" * 4000 + "}]}",
    "two lines": '{"n": "1\\n2", "sha256": ["' + "x" * 10_000 + '"], "remove": []}',
}


@pytest.mark.parametrize("case", CLEAN)
def test_clean_lists(case, tmp_path):
    data = load(f"folder:{fill(tmp_path / 'cells')}")
    (tmp_path / "clean.json").write_text(CLEAN[case])
    with pytest.raises(UserError) as caught:
        remove_rows(data, tmp_path / "clean.json")
    (line,) = str(caught.value).splitlines()
    assert len(line) < 1000


def test_an_index_that_anybody_may_have_written_is_used_only_if_it_is_sound(tmp_path):
    path, labels, names = tmp_path / "index.npz", np.arange(2, dtype=np.int32), Names.of(["ä", "b"])
    ExampleIndex(labels, names).save(path)
    assert tuple(ExampleIndex.load(path, 2).ids) == ("ä", "b")
    ends = names.ends
    for wrong in (
        {"labels": labels * 0.5},
        {"labels": labels[None]},
        {"ends": ends[::-1]},
        {"ends": ends - np.array([1, 0])},
        {"ends": ends.astype(np.uint64)},
        {"letters": names.letters.astype(np.int64)},
        {"letters": names.letters | 0x80},
        {"groups": np.array([0, 9]), "group_letters": names.letters, "group_ends": ends},
    ):
        np.savez(path, **({"labels": labels, "letters": names.letters, "ends": ends} | wrong))
        assert ExampleIndex.load(path, 2) is None, wrong
