"""The tutorial runs in an empty folder, as a reader would run it, and shows what its text says."""

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest

import bloodcell_jax

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = ROOT / "docs" / "tutorial.ipynb"
SECONDS = 300
# What conftest sets for short programs; a reader has none of it.
SETTINGS = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS", "JAX_COMPILATION_CACHE_DIR", "BLOODCELL_JAX_DATA")


def said(notebook):
    """What the cells of a notebook print, in one text."""
    outputs = (output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.mark.docs
@pytest.mark.timeout(4 * SECONDS)
def test_the_tutorial_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient: make test-docs installs it")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient: make test-docs installs it")
    for name in SETTINGS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    notebook, start = nbformat.read(TUTORIAL, as_version=4), time.monotonic()
    nbclient.NotebookClient(
        notebook,
        timeout=SECONDS,
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": tmp_path}},
    ).execute()
    seconds = time.monotonic() - start
    (ROOT / "build").mkdir(exist_ok=True)
    nbformat.write(notebook, ROOT / "build" / "tutorial.ipynb")

    assert seconds < SECONDS
    text = said(notebook)
    assert "61 of 2,061 images" in text
    assert float(re.findall(r"test accuracy ([\d.]+)", text)[0]) > 0.8
    assert float(re.findall(r"largest difference of a probability: ([\d.e-]+)", text)[0]) < 1e-5


def test_readers_who_do_not_run_it_see_its_outputs():
    cells = json.loads(TUTORIAL.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}
    # No warning, and no path of the machine that it ran on.
    assert "Warning" not in json.dumps(outputs)
    assert not re.search(r"/(home|root|tmp|usr|work)/", json.dumps(outputs))


def test_its_code_parses_and_names_what_there_is():
    for cell in json.loads(TUTORIAL.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code" and not text.startswith("!"):
            compile(text, "a cell", "exec")
        assert set(re.findall(r"\bbc\.(\w+)", text)) <= set(bloodcell_jax.__all__)
