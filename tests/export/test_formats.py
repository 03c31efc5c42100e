"""What `export` refuses, before it reads a model."""

import importlib.util

import pytest

from bloodcell_jax import cli
from bloodcell_jax.export.formats import FORMATS


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--output={folder}/a.onnx"], ["--format: missing", "stablehlo"]),
        (["--format=safetensors"], ["--output: missing"]),
        (["--format=pickle", "--output={folder}/a"], ["--format=pickle", "stablehlo, onnx, safetensors, timm"]),
        (["--format=onnx", "--output={folder}/a.zip"], ["a.zip", ".onnx"]),
        (["--format=stablehlo", "--output={folder}/a"], ["--output=", ".zip"]),
        (["--format=timm", "--output={folder}/a.safetensors"], ["writes a folder", ".safetensors"]),
        (["--format=timm", "--output={folder}/there"], ["there: exists already", "new folder"]),
        (["--format=timm", "--output={folder}/none/a"], ["no folder", "none"]),
        (["--format=safetensors", "--output={folder}/a"], ["--workdir: missing", "--model"]),
    ],
)
def test_one_line_says_what_is_wrong(flags, words, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    command = ["bloodcell", "export", *(flag.format(folder=tmp_path) for flag in flags)]
    assert cli.main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.package])
def test_a_missing_extra_is_named(name, tmp_path, capsys, monkeypatch):
    found = importlib.util.find_spec
    hidden = FORMATS[name].package
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None if package == hidden else found(package))
    output = tmp_path / f"a{FORMATS[name].suffix}"
    assert cli.main(["bloodcell", "export", f"--format={name}", "--model=none", f"--output={output}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in (f"package {hidden}", f"bloodcell_jax[{name}]", "safetensors or timm"))


def test_a_model_that_is_no_file_of_a_run_is_refused(tmp_path, capsys):
    (tmp_path / "model.safetensors").write_bytes(b"cells")
    command = ["bloodcell", "export", "--format=timm", f"--model={tmp_path / 'model.safetensors'}"]
    assert cli.main([*command, f"--output={tmp_path / 'cells'}"]) == 3
    assert "model.safetensors: not a weights file" in capsys.readouterr().err
    assert not (tmp_path / "cells").exists()
