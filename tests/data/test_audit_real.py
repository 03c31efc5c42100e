"""The audit on real cells: it finds what is known of them, and takes no cell for something else."""

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bloodcell_jax import cli

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (DATA / "pbc96.zip").exists(), reason="no real cells in ../shared/data"),
]


def audit(source, output):
    assert cli.main(["bloodcell", "audit", f"--source={source}", f"--output={output}"]) == 0
    return [json.loads((output / name).read_text()) for name in ("audit.json", "clean.json")]


def test_the_planted_images_go_and_every_cell_stays(tmp_path):
    cells = tmp_path / "cells.npz"
    subprocess.run([sys.executable, DATA / "make_an2dl_npz.py", cells], check=True, stdout=subprocess.DEVNULL)
    found, clean = audit(f"npz:{cells}", tmp_path / "out")
    rows = {entry["index"]: entry["reason"] for entry in clean["remove"]}
    assert {row for row, reason in rows.items() if reason == "planted"} == set(range(11959, 13759))
    assert Counter(rows.values()) == {"planted": 1800, "duplicate": 8, "conflict": 2}
    # 200 of the 1,600 copies under 8 labels can be right, and one of the pair.
    assert found["accuracy_ceiling"] == 1 - 1401 / 13759


def test_what_is_known_of_the_published_cells(tmp_path):
    found, clean = audit(f"zip:{DATA / 'pbc96.zip'}", tmp_path)
    kinds = Counter((cluster["kind"], cluster["is_exact"]) for cluster in found["clusters"])
    assert kinds == {("duplicate", True): 8, ("conflict", True): 1, ("duplicate", False): 1}
    leak = {"train/monocyte/MO_231316.jpg", "val/monocyte/MO_415531.jpg"}
    (other,) = [cluster for cluster in found["clusters"] if not cluster["is_exact"]]
    assert (len(found["leaks"]), found["leaks"][0]["indices"]) == (1, other["indices"])
    assert leak & {entry["id"] for entry in clean["remove"]} == {"val/monocyte/MO_415531.jpg"}
    (group,) = found["acquisition_groups"]
    with (DATA / "pbc96.csv").open(newline="") as file:
        expected = Counter(row["class"] for row in csv.DictReader(file) if row["other_acquisition"] == "1")
    assert abs(len(group["indices"]) - expected.total()) <= 5
    assert group["class_counts"]["platelet"] == 0
    assert all(abs(group["class_counts"][name] - expected[name]) <= 5 for name in group["class_counts"])
    assert found["geometry_warnings"] == []
    assert not any(telling["is_shortcut"] for telling in found["statistics"])
    assert len(found["outliers"]) <= 14
