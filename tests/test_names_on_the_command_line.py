"""A name on the command line neither steers the terminal nor ends in a traceback because of its length."""

import subprocess
import sys
from pathlib import Path

import pytest

from bloodcell_jax import cli


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def the_line(capsys):
    """Return the one line of standard error that tells the mistake; training tells the devices above it."""
    (line,) = (line for line in capsys.readouterr().err.splitlines() if not line.startswith("devices: "))
    assert line.startswith("bloodcell: ")
    return line


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["report", "--workdir=a\x1b[2J\nb"], r"a\x1b[2J\nb"),
        (["tarin\x1b]0;x\x07"], r"tarin\x1b]0;x\x07"),
        (["predict", "--workdir=run", "--input=\u202egnp", "--output=a.csv"], r"\u202egnp"),
        (["train", "--config=quickstart", "--workdir=run", "--config.data.source=a\x1b"], r"a\x1b"),
    ],
)
def test_a_name_does_not_steer_the_terminal(here, capsys, words, named):
    assert cli.main(["bloodcell", *words]) in (2, 3)
    assert named in the_line(capsys)


LONG = "x" * 300


@pytest.mark.parametrize(
    "words",
    [
        ["report", f"--workdir={LONG}"],
        ["predict", f"--workdir={LONG}", f"--input={LONG}", "--output=a.csv"],
        ["predict", "--workdir=run", "--input=a.png", f"--output={LONG}"],
        ["predict", f"--model={LONG}", "--input=a.png", "--output=a.csv"],
        ["evaluate", f"--model={LONG}"],
        ["evaluate", "--model=a", "--source=npz:a.npz", f"--output={LONG}"],
        ["evaluate", "--model=a", "--source=npz:a.npz", f"--class_map={LONG}.json"],
        ["convert", f"--input={LONG}", "--output=a.safetensors"],
        ["convert", "--input=a.png", f"--output={LONG}.safetensors"],
        ["audit", "--source=synthetic:24", f"--output={LONG}"],
        ["audit", f"--source=npz:{LONG}", "--output=a"],
        ["prepare", "--source=synthetic:24", f"--data_dir={LONG}"],
        ["benchmark", "--config=quickstart", f"--output={LONG}", "--parts=nonsense"],
        ["train", f"--config={LONG}", "--workdir=run"],
        ["train", "--config=quickstart", f"--workdir={LONG}", "--config.data.source=synthetic:24"],
        ["train", "--config=quickstart", "--workdir=run", f"--config.data.source=folder:{LONG}"],
        ["train", "--config=quickstart", "--workdir=run", f"--config.model.weights={LONG}"],
    ],
)
def test_a_name_of_more_than_255_bytes(here, capsys, words):
    (here / "a.png").write_bytes(b"x")
    assert cli.main(["bloodcell", *words]) in (2, 3, 5)
    the_line(capsys)


def test_a_full_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "launch.py", "--help"]
        process = subprocess.run(command, cwd=Path(__file__).parents[1], stdout=full, stderr=subprocess.PIPE, text=True)
    assert process.returncode == 5
    assert process.stderr.splitlines() == ["bloodcell: standard output: No space left on device; mend that"]
