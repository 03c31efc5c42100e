"""The verb `audit`: its files, its page, its exit codes, and what it prints."""

import dataclasses
import json
import os
import re
import shlex
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from PIL import Image

from bloodcell_jax import cli
from bloodcell_jax.cli.config_flags import parse
from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.data.synthetic import draw_cells
from bloodcell_jax.report.audit_page import train_command

# These names are markup if the page does not escape them.
HOSTILE = '"><script>alert(1)<:script>'
CLASSES = ("a <b>bold", "b & c")


class _Page(HTMLParser):
    """Collects the visible text, all tags, and all addresses that the page would load."""

    def __init__(self, html):
        super().__init__()
        self.text, self.tags, self.addresses = "", [], []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "data", "action", "srcset")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make class folders in train/ and val/ with hostile names, a duplicate, a conflict and a leak."""
    root = tmp_path_factory.mktemp("cells")
    cells, _ = draw_cells(60, seed=9, size=32)
    images = {f"train/{CLASSES[i % 2]}/{i:02}.png": cells[i] for i in range(40)}
    images |= {f"val/{CLASSES[i % 2]}/{i:02}.png": cells[i] for i in range(40, 60)}
    images[f"train/{CLASSES[0]}/{HOSTILE}.png"] = cells[2]
    images[f"train/{CLASSES[1]}/conflict.png"] = cells[4, ::-1]
    images[f"val/{CLASSES[0]}/leak.png"] = cells[6]
    for name, image in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / name)
    return root


@pytest.fixture(scope="module")
def output(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("audit") / "new" / "folder"
    flags = [f"--source=folder:{folder}", f"--output={output}", "--image_size=32"]
    assert cli.main(["bloodcell", "audit", *flags]) == 0
    return output


def test_the_files(output, folder):
    assert sorted(path.name for path in output.iterdir()) == ["audit.json", "clean.json", "index.html"]
    data = load_source(f"folder:{folder}", image_size=32)
    clean = json.loads((output / "clean.json").read_text())
    assert (clean["source"], clean["n"], clean["sha256"]) == (data.source, 63, data.sha256())
    expected = {
        f"train/{CLASSES[0]}/{HOSTILE}.png": "duplicate",
        f"train/{CLASSES[0]}/04.png": "conflict",
        f"train/{CLASSES[1]}/conflict.png": "conflict",
        f"val/{CLASSES[0]}/leak.png": "duplicate",
    }
    # The copy with the lowest index is kept, and the hostile name sorts before 02.
    expected[f"train/{CLASSES[0]}/02.png"] = expected.pop(f"train/{CLASSES[0]}/{HOSTILE}.png")
    assert {entry["id"]: entry["reason"] for entry in clean["remove"]} == expected
    assert all(data.ids[entry["index"]] == entry["id"] for entry in clean["remove"])
    assert json.loads((output / "audit.json").read_text())["remove"] == {"conflict": 2, "duplicate": 2}


def test_the_page_says_first_what_matters(output):
    page = _Page((output / "index.html").read_text())
    for said in (
        f"--config.data.clean={output / 'clean.json'}",
        "--config.data.image_size=32",
        "train 42, val 21",
        "train and val",
        json.loads((output / "clean.json").read_text())["sha256"],
        *CLASSES,
    ):
        assert said in page.text, said
    verdict, planted, rest = re.split("Planted images|Conflicting labels", page.text, maxsplit=2)
    # What to leave out and of how many, the reasons, the ceiling of the accuracy, and the leak.
    for pattern in (
        "4 of 63",
        r"6\.3 ?%",
        r"\b2\b[^,.]*conflict",
        "2 duplicates",
        r"98\.41 ?%",
        r"\b1 image\b[^.]*split",
    ):
        assert re.search(pattern, verdict), pattern
    assert "None" in planted
    # One pair has equal bytes, and the other pair is an image and its mirror image.
    assert "byte" in rest
    assert "turned" in rest
    assert "Class balance" in rest


def test_the_page_loads_nothing_and_escapes_what_it_shows(output):
    html = (output / "index.html").read_text()
    page = _Page(html)
    # Two images each of the duplicate, the conflict and the leak, which is shown twice.
    assert page.tags.count("img") >= 8
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert not {"link", "iframe", "object", "embed"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert HOSTILE in page.text
    assert "<b>bold" not in html
    assert not re.search(r"@import|url\((?!#)", html)


def audit(*flags):
    return cli.main(["bloodcell", "audit", *flags])


def test_what_is_printed(folder, tmp_path, capsys):
    assert audit(f"--source=folder:{folder}", f"--output={tmp_path}", "--image_size=32", "--crop=none") == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].startswith(f"folder:{folder}: 63 ")
    assert any("4 of 63" in line for line in lines)
    assert any(line.endswith(f" {tmp_path / 'index.html'}") for line in lines)
    assert any(f" {tmp_path / 'clean.json'};" in line for line in lines)
    assert {"--config.data.image_size=32", "--config.data.crop=none"} < set(lines[-1].split())
    assert re.search(r"^bloodcell: audit: .*\b63\b", printed.err, re.MULTILINE)


def test_predictions_are_ranked(folder, tmp_path, capsys):
    data = load_source(f"folder:{folder}", image_size=32)
    rows = ["id,label,predicted,confidence," + ",".join(CLASSES)]
    for i, (name, label) in enumerate(zip(data.ids, data.labels, strict=True)):
        right = i != 20
        first = 0.9 if (label == 0) == right else 0.1
        quoted = '"' + name.replace('"', '""') + '"'
        rows.append(f"{quoted},{CLASSES[label]},x,0.9,{first},{1 - first}")
    (tmp_path / "predictions.csv").write_text("\n".join(rows))
    flags = [f"--source=folder:{folder}", f"--output={tmp_path / 'out'}", "--image_size=32"]
    assert audit(*flags, f"--predictions={tmp_path / 'predictions.csv'}") == 0
    printed = capsys.readouterr().out
    assert re.search(r"\b1\b[^,.]*label error", printed)
    assert re.search(r"\b63 of 63 images\b.*\b98.4%", printed)
    page = _Page((tmp_path / "out" / "index.html").read_text())
    assert "Likely label errors" in page.text
    assert f"{CLASSES[1 - data.labels[20]]}, margin" in page.text
    assert "63 of 63 images" in page.text
    written = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert written["predictions"] == {"n": 63, "accuracy": 62 / 63}
    (error,) = written["label_errors"]
    assert error["id"] == data.ids[20]


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ([], 2, "--source: "),
        (["--source=synthetic:24"], 2, "--output: "),
        (["--source=npz:absent.npz", "--output=out"], 3, "npz:absent.npz: "),
        (["--source=synthetic:24", "--output=file"], 2, "--output=file: "),
        (["--source=synthetic:24", "--output=out", "--crop=0"], 2, "--crop=0: "),
        (["--source=synthetic:24", "--output=out", "--image_size=8"], 2, "image_size"),
        (["--source=synthetic:24", "--output=out", "--predictions=absent.csv"], 3, "absent.csv: "),
        (["--source=synthetic:24", "--output=file/below"], 5, "--output=file/below: "),
    ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, flags, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert audit(*flags) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bloodcell: ")]
    assert said in lines[-1]


def test_training_on_other_data_is_refused(output, tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "cells.npz", images=images, labels=np.arange(9) % 3)
    flags = ["--config=quickstart", f"--workdir={tmp_path / 'run'}", f"--config.data.source={tmp_path / 'cells.npz'}"]
    assert cli.main(["bloodcell", "train", *flags, f"--config.data.clean={output / 'clean.json'}"]) == 3
    sha256 = json.loads((output / "clean.json").read_text())["sha256"]
    said = capsys.readouterr().err.splitlines()[-1]
    # The file, the size and hash that it is valid for, and the size of the data at hand.
    assert "clean.json: " in said
    assert sha256 in said
    assert re.search(r"\b63\b.*\b9\b", said)
    assert not (tmp_path / "run").exists()


def test_the_suggested_command_reads_the_source_as_the_audit_did():
    config = DataConfig(
        source="folder:my cells",
        data_dir="my sets",
        image_size=32,
        crop=0.5,
        class_names=("b", "a"),
        exclude="*.tif",
        class_level=2,
        skip_bad=True,
    )
    plain = shlex.split(train_command(DataConfig(source="folder:my cells"), Path("out")))
    assert plain[4:] == ["--config.data.source=folder:my cells", "--config.data.clean=out/clean.json"]
    words = shlex.split(train_command(config, Path("out")))
    _, read = parse(flags.FlagValues(), [word for word in words[1:] if not word.startswith("--workdir")])
    assert read.data == dataclasses.replace(config, clean="out/clean.json")


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "it's\n\\x41", "caf\udce9", "\u202egnp\x85\xa0", "plain 'q'"])
def test_the_command_steers_no_terminal_and_a_shell_reads_the_name(name):
    command = train_command(DataConfig(source=f"folder:{name}"), Path("out"))
    assert command.isprintable()
    script = f'bloodcell() {{ printf "%s\\0" "$@"; }}; {command}'
    words = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.split(b"\0")
    assert os.fsencode(f"--config.data.source=folder:{name}") in words
