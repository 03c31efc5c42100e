"""Test-time augmentation, and a split under the run's own augmentation."""

import json
import shutil

import jax
import numpy as np
import pytest

import bloodcell_jax as bc
from bloodcell_jax import cli
from bloodcell_jax.augment.policies import apply_policy
from bloodcell_jax.augment.policy_strings import parse_policy


@pytest.fixture
def trained_copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def orientations(images):
    """Return the 8 orientations of images [n, h, w, c]."""
    turned = [np.rot90(images, k, axes=(1, 2)) for k in range(4)]
    return turned + [image[:, :, ::-1] for image in turned]


def test_test_time_augmentation_is_the_mean_over_8_orientations(trained, cells):
    images = np.load(cells)["images"][:6]
    alone = bc.Classifier.from_workdir(trained)
    alone.calibration = None  # At temperature 1 the mean of probabilities is the answer.
    together = bc.Classifier.from_workdir(trained, tta=True)
    together.calibration = None
    expected = np.mean([alone.predict(np.ascontiguousarray(turned)) for turned in orientations(images)], axis=0)
    np.testing.assert_allclose(together.predict(images), expected, atol=1e-5)
    assert np.abs(expected - alone.predict(images)).max() > 1e-4
    for turned in orientations(images)[1:3]:
        answers = together.predict(np.ascontiguousarray(turned))
        np.testing.assert_allclose(answers, expected, atol=1e-5, err_msg="an orientation does not matter")


def test_what_it_is_known_by_does_not_change(trained, cells):
    images = np.load(cells)["images"][:6]
    alone, together = (bc.Classifier.from_workdir(trained, tta=tta).answer(images) for tta in (False, True))
    np.testing.assert_allclose(alone.scores, together.scores, atol=1e-4)
    np.testing.assert_array_equal(alone.known, together.known)


def test_a_models_file_has_no_augmented_split(trained, cells, tmp_path, capsys):
    command = ["bloodcell", "evaluate", f"--model={trained / 'model.safetensors'}", f"--source=npz:{cells}"]
    assert cli.main([*command, "--split=all_aug", f"--output={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr().err
    assert "--split=all_aug" in said
    assert "--workdir" in said
    assert not (tmp_path / "out").exists()


def test_evaluate_with_tta_has_a_folder_of_its_own(trained_copy):
    plain = (trained_copy / "eval/test/metrics.json").read_bytes()
    assert cli.main(["bloodcell", "evaluate", f"--workdir={trained_copy}", "--tta"]) == 0
    assert (trained_copy / "eval/test/metrics.json").read_bytes() == plain
    metrics = json.loads((trained_copy / "eval/test_tta/metrics.json").read_text())
    assert metrics["tta"] is True


def test_val_aug_is_val_under_the_policy_of_the_run(trained_copy, cells):
    assert cli.main(["bloodcell", "evaluate", f"--workdir={trained_copy}", "--split=val_aug"]) == 0
    folder = trained_copy / "eval/val_aug"
    metrics = json.loads((folder / "metrics.json").read_text())
    config = json.loads((trained_copy / "config.json").read_text())
    assert (metrics["split"], metrics["augmented_by"]) == ("val_aug", config["augment"]["policy"])
    val = json.loads((trained_copy / "splits.json").read_text())["splits"]["val"]
    images = np.load(cells)["images"][val]
    block = config["augment"]["block"]
    padded = np.concatenate([images, np.repeat(images[-1:], -len(images) % block, axis=0)])
    slots = np.arange(len(padded), dtype=np.int32)
    policy = parse_policy(config["augment"]["policy"])
    changed = apply_policy(policy, jax.random.key(0), slots, padded.astype(np.float32) / 255, block=block)
    changed = np.round(np.asarray(changed) * 255).astype(np.uint8)[: len(images)]
    assert (changed != images).any()
    expected = bc.Classifier.from_workdir(trained_copy).predict(changed)
    lines = (folder / "predictions.csv").read_text().splitlines()[1:]
    np.testing.assert_allclose([[float(p) for p in line.split(",")[4:]] for line in lines], expected, atol=1e-3)


def test_an_augmented_split_has_no_suite(trained, capsys):
    command = ["bloodcell", "evaluate", f"--workdir={trained}", "--split=val_aug", "--suite=chains"]
    assert cli.main(command) == 2
    assert "val_aug" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["vall", "vall_aug"])
def test_a_split_that_is_not_there_is_refused(trained, split, capsys):
    assert cli.main(["bloodcell", "evaluate", f"--workdir={trained}", f"--split={split}"]) == 2
    assert "val_aug" in capsys.readouterr().err
