"""A run on cells of patients: splits by patient, sampling by patient, and a page that says so."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.config import from_dict, to_dict
from bloodcell_jax.data.splits import describe_splits, split_rule
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.run.create import create_run
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.resume import check_same_splits

REGEX = r"UID_(\d+)_.*"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with files named as in C-NMC: three classes of 40 cells, of 5 patients each."""
    folder, rng = tmp_path_factory.mktemp("patients"), np.random.default_rng(0)
    for label, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir()
        for cell in range(40):
            patient = 5 * label + min(cell // 6, 4)
            pixels = rng.integers(0, 200, (32, 32, 3), dtype=np.uint8)
            pixels[..., label] += 50
            Image.fromarray(pixels).save(folder / name / f"UID_{patient}_{cell}_1_{name}.png")
    return folder


@pytest.fixture(scope="module")
def finished(folder, start, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "run"
    flags = [f"source=folder:{folder}", f"group_regex={REGEX}", "sampler=groups"]
    # A head alone compiles in little time.
    flags = [*(f"--config.data.{flag}" for flag in flags), "--config.stages[1].trainable=('head/.*','!.*')"]
    process = start(workdir, *flags)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "groups: 15 of 6 to 16 images: 0, 1, 10 and 12 more" in errors
    return workdir


def config_of(workdir, **data):
    """Return the configuration of a run with other fields of its data."""
    values = to_dict(Workdir(workdir).read_config())
    values["data"] |= data
    return from_dict(values)


def test_the_run_says_by_what_it_was_split(finished):
    by = json.loads((finished / "splits.json").read_text())["by"]
    assert (by["groups"], by["count"], by["crossing"]) == (f"data.group_regex={REGEX}", 15, 0)
    assert (by["given"], by["duplicates"]) == ([], True)
    assert sum(by["per_split"].values()) == 15
    page = re.sub(r"\s+", " ", (finished / "report" / "index.html").read_text())
    assert "Split by patient: 15 groups" in page
    assert f"{by['per_split']['test']} in test" in page
    assert "patient identifiers" not in page
    notes = json.loads((finished / "environment.json").read_text())["data"]["notes"]
    assert any("groups kept whole" in note for note in notes)


def test_no_patient_is_in_two_splits(finished):
    run = create_run(Workdir(finished).read_config())
    groups = [{run.dataset.groups[i] for i in indices} for indices in Workdir(finished).read_splits().values()]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 15


def test_an_older_file_of_splits_is_read_and_other_groups_are_refused(finished, tmp_path):
    workdir = Workdir(shutil.copytree(finished, tmp_path / "run"))
    run = create_run(workdir.read_config())
    now = describe_splits(run.splits, run.data_hash, split_rule(run.dataset, run.splits, run.config.data))
    assert json.loads(workdir.splits.read_text()) == now
    check_same_splits(workdir, now)
    # Earlier versions knew no groups, and no `by`.
    older = describe_splits(run.splits, run.data_hash)
    assert "by" not in older
    workdir.splits.write_text(json.dumps(older))
    assert {name: indices.tolist() for name, indices in workdir.read_splits().items()} == older["splits"]
    config = config_of(finished, group_regex=None)
    check_same_splits(workdir, older | {"by": split_rule(run.dataset, run.splits, config.data)})
    with pytest.raises(UsageError, match=r"splits\.json: .*groups"):
        check_same_splits(workdir, now)


def test_a_sampler_of_groups_needs_groups(finished):
    with pytest.raises(UsageError, match=r"sampler=groups: .*group_regex"):
        create_run(config_of(finished, group_regex=None))


def test_one_group_cannot_be_split(finished):
    with pytest.raises(DataError, match=r"class red is in 1 group \(UID\); .*\b3 of each class"):
        create_run(config_of(finished, group_regex="(UID)_.*"))
