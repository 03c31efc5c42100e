"""Suites of corruptions: what they do is frozen, each image has its own draw, and the scores are exact."""

import hashlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.metrics import recall_score

from bloodcell_jax import cli
from bloodcell_jax.augment.corruptions.chains import DISTORTIONS
from bloodcell_jax.data.synthetic import draw_cells
from bloodcell_jax.devices.parallel import create_parallel
from bloodcell_jax.errors import UsageError
from bloodcell_jax.evaluate.robustness.corrupted import changes_of
from bloodcell_jax.evaluate.robustness.scores import suite_scores
from bloodcell_jax.evaluate.robustness.suites import SUITES, suite_of
from bloodcell_jax.workdir.layout import SUITE_NAMES

SIDE = 96
FROZEN = Path(__file__).with_name("suite_levels.json")


def corrupted_cells(suite, count=8, places=None):
    """Return what a suite makes of synthetic cells, uint8 [passes, count, 96, 96, 3]."""
    parallel = create_parallel("jit", 1, jax.devices()[:1])
    images = draw_cells(16, size=SIDE)[0][:count]
    places = np.arange(count, dtype=np.int32) if places is None else places
    return np.stack([np.asarray(change(images[places], places)) for *_, change in changes_of(suite, parallel)])


def test_the_names_are_those_that_the_workdir_keeps():
    assert tuple(SUITES) == SUITE_NAMES
    assert {suite.passes for suite in SUITES.values()} == {60, 5}
    with pytest.raises(UsageError, match=r"blood96-c, imagenet-c, chains"):
        suite_of("blood-c")


def test_the_numbers_of_a_version_never_change():
    numbers = {
        f"{name} {suite.version}": repr([(each.name, each.severities) for each in suite.corruptions])
        for name, suite in SUITES.items()
    }
    found = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in numbers.items()}
    assert found == {
        "blood96-c 1": "16b6afa9f0779e867e4d0b7dfd6979261a6dbd853c0cac5d522344ff4e075dda",
        "imagenet-c 1": "ca705f3d76bcc52717b557cbb1a4584592914eaae2d5fcc5be60365e2537616c",
        "chains 1": "74fd083a8c57b3a1ae051f9573631c39084e9e799d5c80475178c154c483d155",
    }


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SUITE_NAMES)
def test_what_a_version_does_never_changes(name):
    """Mean level and mean distance to the clean image of every pass; other ones are another version."""
    suite = SUITES[name]
    images, clean = corrupted_cells(suite).astype(float), draw_cells(16, size=SIDE)[0][:8].astype(float)
    found = np.stack([images.mean((1, 2, 3, 4)), np.abs(images - clean).mean((1, 2, 3, 4))], axis=1)
    frozen = json.loads(FROZEN.read_text())[f"{name} {suite.version}"]
    np.testing.assert_allclose(found, frozen, atol=0.15)


def test_a_suite_grows_with_its_severity():
    frozen = json.loads(FROZEN.read_text())
    for name, suite in SUITES.items():
        by_level = np.array(frozen[f"{name} {suite.version}"])[:, 1].reshape(len(suite.corruptions), -1)
        assert (by_level > 0.2).all(), "every pass changes images"
        assert (by_level[:, -1] > by_level[:, 0]).mean() > 0.9


def test_draws_depend_on_the_place_alone():
    suite = suite_of("chains")
    all_of_them = corrupted_cells(suite)
    # Of one size, so that the compiled program is found in the cache.
    places = np.array([5, 2, 7, 0, 1, 3, 4, 6], np.int32)
    np.testing.assert_array_equal(corrupted_cells(suite, places=places), all_of_them[:, places])
    assert len({image.tobytes() for image in all_of_them.reshape(40, -1)}) > 35


def test_a_chain_has_different_links():
    most = max(numbers[0] for numbers in suite_of("chains").corruptions[0].severities)
    assert most == 3
    order = jax.random.permutation(jax.random.key(0), len(DISTORTIONS))[:most]
    assert len(set(order.tolist())) == most


def test_scores_are_scikit_learn_s():
    suite, rng = suite_of("chains"), np.random.default_rng(0)
    labels, clean, corrupted = rng.integers(0, 3, 50), rng.integers(0, 4, 50), rng.integers(0, 4, (50, 5))
    scores = suite_scores(suite, labels, clean, corrupted, 4)
    wanted = [
        {"accuracy": (column == labels).mean(), "balanced_accuracy": recall(labels, column)}
        for column in (clean, *corrupted.T)
    ]
    assert scores["clean"] == pytest.approx(wanted[0])
    assert [scores["chain"][str(level)] for level in range(1, 6)] == [pytest.approx(each) for each in wanted[1:]]
    for name in ("accuracy", "balanced_accuracy"):
        assert scores["mean"][name] == pytest.approx(np.mean([each[name] for each in wanted[1:]]))
        assert scores["relative"][name] == pytest.approx(scores["mean"][name] - wanted[0][name])


def recall(labels, predicted):
    """Return scikit-learn's macro recall over the classes present, whatever else is predicted."""
    return recall_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)


def test_evaluate_writes_a_file_for_each_suite(trained, tmp_path, capsys):
    output = tmp_path / "results"
    command = ["bloodcell", "evaluate", f"--workdir={trained}", f"--output={output}"]
    assert cli.main([*command, "--suite=chains", "--json"]) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert printed["metrics"] == json.loads((output / "metrics.json").read_text())
    scores = json.loads((output / "chains.json").read_text())
    assert printed["suites"] == {"chains": scores}
    about = scores["suite"]
    assert (about["name"], about["version"], about["split"], about["n"]) == (
        "chains",
        1,
        "test",
        printed["metrics"]["n"],
    )
    assert scores["clean"]["accuracy"] == printed["metrics"]["accuracy"]
    assert set(scores["chain"]) == {"1", "2", "3", "4", "5"}
    assert scores["mean"]["accuracy"] < scores["clean"]["accuracy"]
    # The same answers again keep the scores under corruptions; those of other images do not.
    assert cli.main(command) == 0
    assert (output / "chains.json").exists()
    assert cli.main([*command, "--split=val"]) == 0
    assert not (output / "chains.json").exists()


def test_a_suite_that_is_not_there_is_refused_before_the_model_is_read(capsys):
    assert cli.main(["bloodcell", "evaluate", "--workdir=nowhere", "--suite=blood-c"]) == 2
    assert "blood96-c" in capsys.readouterr().err
