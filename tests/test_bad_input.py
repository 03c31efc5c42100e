"""A mistake of a user ends with one line that names the thing, with its exit code, and without unfinished files."""

import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax import cli

IMPORT = "from bloodcell_jax.config import *"
GOOD = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*flags, config="quickstart"):
    return cli.main(["bloodcell", "train", f"--config={config}", "--workdir=run", *flags])


def refused(capsys, code, expected, *words):
    """Check the exit code, and that standard error ends with one line with these words and has no traceback."""
    lines = capsys.readouterr().err.splitlines()
    # This line tells a decision about the data and is not a part of the error.
    mine = [line for line in lines if line.startswith("bloodcell: ") and "data.feed=auto" not in line]
    assert code == expected, lines
    assert len(mine) == 1, lines
    assert lines[-1] == mine[0]
    assert not any("Traceback" in line for line in lines)
    for word in words:
        assert word in mine[0]


def save_npz(**arrays):
    np.savez("cells.npz", **arrays)


def floats(value):
    images = GOOD / 255.0
    images[3, 2, 1, 0] = value
    return images


ARRAYS = {
    "wrong keys": ({"x": GOOD, "y": LABELS}, ["images", "labels", "x, y"]),
    "no labels": ({"images": GOOD}, ["labels"]),
    "wrong dtype": ({"images": GOOD.astype(np.int64), "labels": LABELS}, ["images", "int64", "uint8"]),
    "wrong shape": ({"images": GOOD[..., 0], "labels": LABELS}, ["images", "[12, 16, 16]"]),
    "four channels": ({"images": np.zeros((4, 8, 8, 4), np.uint8), "labels": LABELS[:4]}, ["images", "[4, 8, 8, 4]"]),
    "no images": ({"images": GOOD[:0], "labels": LABELS[:0]}, ["images", "[0, 16, 16, 3]"]),
    "labels below 0": ({"images": GOOD, "labels": LABELS - 1}, ["labels", "-1 to 1"]),
    "labels far out": ({"images": GOOD, "labels": LABELS * 10**6}, ["labels", "0 to 2000000"]),
    "another count": ({"images": GOOD, "labels": LABELS[:-1]}, ["12 images", "11 labels"]),
    "labels as floats": ({"images": GOOD, "labels": LABELS * 1.0}, ["labels", "float64"]),
    "one-hot labels": ({"images": GOOD, "labels": np.eye(3)[LABELS]}, ["labels", "[12, 3]"]),
    "floats too large": ({"images": GOOD * 1.0, "labels": LABELS}, ["images", "0 to 255", "0 to 1"]),
    "floats below 0": ({"images": floats(-0.1), "labels": LABELS}, ["images", "-0.1 to 1", "0 to 1"]),
    "NaN": ({"images": floats(np.nan), "labels": LABELS}, ["images", "NaN"]),
    "an empty class": ({"images": GOOD, "labels": LABELS * 2}, ["class 1", "no image"]),
    "one class": ({"images": GOOD, "labels": LABELS * 0}, ["one class", "(0)"]),
    "two of a class": ({"images": GOOD, "labels": np.array([0] * 10 + [1] * 2)}, ["class 1", "2 images"]),
    "pickled objects": ({"images": np.array([{}, None]), "labels": LABELS[:2]}, [".npz", "allow_pickle"]),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays(here, capsys, case):
    arrays, words = ARRAYS[case]
    save_npz(**arrays)
    code = train("--config.data.source=npz:cells.npz")
    refused(capsys, code, 3, "npz:cells.npz: ", *words)
    assert sorted(path.name for path in here.iterdir()) == ["cells.npz"]


def test_labels_beyond_the_class_names(here, capsys):
    save_npz(images=GOOD, labels=LABELS)
    code = train("--config.data.source=npz:cells.npz", "--config.data.class_names=('a','b')")
    refused(capsys, code, 3, "labels", "0 to 2", "2 data.class_names")


def test_texts_with_commas_are_one_or_several(here, capsys):
    code = train("--config.data.source=npz:cells.npz", "--config.data.class_names=hem,all")
    refused(capsys, code, 2, "--config.data.class_names=hem,all", "('hem', 'all')", "('hem,all',)")


def test_a_file_that_is_no_npz(here, capsys):
    (here / "cells.npz").write_bytes(b"hello")
    refused(capsys, train("--config.data.source=npz:cells.npz"), 3, "npz:cells.npz: ", ".npz (")


def make_folder(root, count=4, classes=("a", "b")):
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(GOOD[i]).save(root / name / f"{i}.png")


def test_a_truncated_image(here, capsys):
    make_folder(here / "cells")
    image = here / "cells" / "b" / "2.png"
    image.write_bytes(image.read_bytes()[:300])
    refused(capsys, train("--config.data.source=folder:cells"), 3, "folder:cells: ", "1 of 8", "b/2.png")
    assert not (here / "run").exists()


def test_a_class_folder_without_images(here, capsys):
    make_folder(here / "cells")
    (here / "cells" / "c").mkdir()
    (here / "cells" / "c" / "notes.txt").write_text("none yet")
    refused(capsys, train("--config.data.source=folder:cells"), 3, "folder:cells: ", "folder c", "no image")


def test_only_one_class_folder(here, capsys):
    make_folder(here / "cells", classes=("a",))
    refused(capsys, train("--config.data.source=folder:cells"), 3, "folder:cells: ", "one class", "(a)")


def test_images_outside_class_folders(here, capsys):
    make_folder(here / "cells")
    Image.fromarray(GOOD[0]).save(here / "cells" / "stray.png")
    refused(capsys, train("--config.data.source=folder:cells"), 3, "folder:cells: ", "stray.png", "class folder")


def test_splits_without_train(here, capsys):
    make_folder(here / "cells" / "test")
    make_folder(here / "cells" / "val")
    refused(capsys, train("--config.data.source=folder:cells"), 3, "folder:cells: ", "test, val", "train/")


def test_a_broken_archive(here, capsys):
    make_folder(here / "cells")
    with zipfile.ZipFile("cells.zip", "w") as archive:
        for path in sorted((here / "cells").rglob("*.png")):
            archive.write(path, path.relative_to(here / "cells"))
    content = bytearray((here / "cells.zip").read_bytes())
    content[60:200] = bytes(140)
    (here / "cells.zip").write_bytes(content)
    refused(capsys, train("--config.data.source=zip:cells.zip"), 3, "zip:cells.zip: ", "1 of 8", "a/0.png")
    (here / "cells.zip").write_bytes(b"PK hello")
    refused(capsys, train("--config.data.source=zip:cells.zip"), 3, "zip:cells.zip: ", "zip archive")


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("npz:absent.npz", 3, ["no such"]),
        ("folder:absent", 3, ["no such"]),
        ("absent.npz", 3, ["no such"]),
        ("tables:x", 2, ["npz:PATH", "synthetic:N"]),
        ("synthetic:few", 2, ["24"]),
        ("synthetic:8", 2, ["24"]),
    ],
)
def test_sources(here, capsys, source, code, words):
    refused(capsys, train(f"--config.data.source={source}"), code, f"{source}: ", *words)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--config.train.batchsize=8"], ["config.train.batchsize", "batch_size"]),
        (["--config.trian.batch_size=8"], ["config.trian", "train"]),
        (["--config.train.batch_size=many"], ["config.train.batch_size", "many"]),
        (["--config.train.batch_size=0"], ["config.train.batch_size=0", " 1"]),
        (["--config.train.backend=tpu"], ["config.train.backend='tpu'", "pmap, jit"]),
        (["--config.model.drop_path=2"], ["config.model.drop_path=2", "0.99"]),
        (["--config.stages[3].epochs=1"], ["config.stages[3]"]),
        (["--config.stages[0].trainable=('head',)"], ["trainable"]),
        (["--config.augment.policy=d4|blur"], ["policy", "'blur'", "gaussian_blur"]),
        (["--config.augment.mix=mixup:p=2"], ["mix", "'mixup:p=2'", "p=2", "0 to 1"]),
        (["--config.augment.block=1"], ["config.augment.block=1", " 2"]),
        (
            ["--config.augment.policy=randaugment"],
            ["config.train.batch_size=32", "4 on each of 8 devices", "config.augment.block=32", "256"],
        ),
        (["--config.train.jsd=12"], ["config.train.jsd=12", "augmix", "config.augment.policy"]),
        (
            ["--config.train.jsd=12", "--config.augment.policy=augmix", "--config.augment.mix=mixup"],
            ["config.train.jsd=12", "config.augment.mix='mixup'"],
        ),
        (["--config.train.ema_decay=1"], ["ema_decay=1", "0.999"]),
        (["--config.stages[0].optimizer.clip_norm=0"], ["stages[0].optimizer.clip_norm=0", "none"]),
        (["--config.data.sampler_redraw=true"], ["sampler_redraw=True", "sampler=under", "natural"]),
        (["--config.model.variant=convnext_atoo"], ["convnext_atoo", "convnext_atto,"]),
        (["--config.data.splits=(0.5,0.1,0.1)"], ["config.data.splits=(0.5, 0.1, 0.1)", " 1"]),
        (["--config.seed=-1"], ["config.seed=-1", " 0"]),
        (["--config.data.image_size=24"], ["24x24", "32x32"]),
        (["--config.train.batch_size=12"], ["config.train.batch_size=12", "8 devices", "8 or 16"]),
        (["--config.train.batch_size=4"], ["config.train.batch_size=4", "8 devices", "is 8"]),
        (["--workdirr=x"], ["--workdirr: ", "train --help"]),
        (["extra"], ["extra: ", "--name=value"]),
        (["--distributed=maybe"], ["--distributed=maybe", "auto", "off"]),
        (["--expected_devices=three"], ["--expected_devices=three"]),
        (["--config.model.weights=absent.safetensors"], ["absent.safetensors: "]),
    ],
)
def test_configuration(here, capsys, flags, words):
    code = train("--config.data.source=synthetic:24", *flags)
    refused(capsys, code, 3 if "weights" in flags[0] else 2, *words)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such"),
        ("", "get_config"),
        ("def get_config(arg=''): return {'a': 1}", "dict"),
        ("def get_config(arg=''): return 1 / 0", "ZeroDivisionError"),
        ("def get_config(arg='')", "SyntaxError"),
        ("import missing_package", "missing_package"),
        (f"{IMPORT}\ndef get_config(arg=''): return Config(sed=1)", "sed"),
        (f"{IMPORT}\ndef get_config(arg=''): return Config(seed='x')", "config.seed='x'"),
        (f"{IMPORT}\ndef get_config(arg=''): return Config(stages=[])", "config.stages: "),
    ],
)
def test_configuration_files(here, capsys, content, words):
    if content is not None:
        (here / "mine.py").write_text(content)
    refused(capsys, train(config="mine.py"), 2, words)
    assert not (here / "run").exists()


def test_a_workdir_that_is_a_file(here, capsys):
    (here / "run").write_text("mine")
    refused(capsys, train("--config.data.source=synthetic:24"), 2, "--workdir=run: ", "file")
    assert (here / "run").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_workdir_that_is_not_writable(here, capsys):
    (here / "run").mkdir(mode=0o555)
    refused(capsys, train("--config.data.source=synthetic:24"), 5, "--workdir=run: ")


def test_a_workdir_on_a_file_system_that_refuses(here, capsys):
    code = cli.main(["bloodcell", "train", "--config=quickstart", "--workdir=/proc/run"])
    refused(capsys, code, 5, "--workdir=/proc/run: ")


def test_a_tilde_is_the_home_folder(here, capsys, monkeypatch):
    """A shell does not expand the tilde of --workdir=~/run, and nobody wants a folder with the name ~."""
    monkeypatch.setenv("HOME", str(here))
    code = cli.main(["bloodcell", "report", "--workdir=~/absent"])
    refused(capsys, code, 2, f"{here}/absent: ", "--workdir")
    code = cli.main(["bloodcell", "predict", "--workdir=~", "--input=~/absent", "--output=~/cells.csv"])
    refused(capsys, code, 2, f"--input={here}/absent: ")
    code = train("--config.model.weights=~/absent.pth")
    refused(capsys, code, 3, f"{here}/absent.pth: ")


def test_a_workdir_in_use(here, capsys):
    from bloodcell_jax.workdir import Workdir

    with Workdir(here / "run").locked():
        before = sorted(path.name for path in (here / "run").iterdir())
        code = train("--config.data.source=synthetic:24")
        refused(capsys, code, 5, "--workdir=run: ", "in use")
        assert sorted(path.name for path in (here / "run").iterdir()) == before


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["tarin"], 2, ["tarin: ", "prepare, train"]),
        (["train", "--workdir=run"], 2, ["--config: "]),
        (["train", "--config=quickstart"], 2, ["--workdir: "]),
        (["train", "--config=quickstrat", "--workdir=run"], 2, ["--config=quickstrat: ", "quickstart"]),
        (["evaluate"], 2, ["--workdir: "]),
        (["report", "--workdir=absent"], 2, ["absent: ", "--workdir"]),
        (["convert", "--input=absent.pth", "--output=a.safetensors"], 3, ["absent.pth: "]),
        (["convert", "--input=absent.pth", "--output=a.npz"], 2, ["--output=a.npz: ", ".safetensors"]),
    ],
)
def test_verbs(here, capsys, words, code, expected):
    refused(capsys, cli.main(["bloodcell", *words]), code, *expected)
    assert list(here.iterdir()) == []


def test_help_teaches(capsys):
    assert cli.main(["bloodcell"]) == 2
    assert cli.main(["bloodcell", "--help"]) == 0
    overview = capsys.readouterr().out
    for verb in ("prepare", "train", "evaluate", "predict", "convert", "report"):
        assert verb in overview
        assert cli.main(["bloodcell", verb, "--help"]) == 0
        assert f"{verb} --" in capsys.readouterr().out
    cli.main(["bloodcell", "train", "--help"])
    text = capsys.readouterr().out
    for field in ("seed", "stages[0].optimizer.learning_rate", "train.backend", "augment.policy", "data.crop"):
        assert f"--config.{field}" in text
