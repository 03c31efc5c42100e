"""The corrupted test images of the table: they never change, and answers to them are kept for one model alone."""

import json
import shutil

import jax
import numpy as np

from bloodcell_jax.augment.corruptions.chains import chain
from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.loading import load_data
from bloodcell_jax.data.synthetic import draw_cells
from bloodcell_jax.devices.parallel import create_parallel
from bloodcell_jax.evaluate.robustness.corrupted import changes_of
from bloodcell_jax.table1.corrupted_test import ONE_CHAIN, corrupted_answers, one_chain
from bloodcell_jax.workdir import Workdir


def test_each_image_has_one_corruption_that_never_changes():
    images = draw_cells(16, size=32)[0]
    parallel = create_parallel("jit", 1, jax.devices()[:1])
    ((_, _, change),) = changes_of(ONE_CHAIN, parallel)
    all_at_once = np.asarray(change(images, np.arange(16, dtype=np.int32)))
    part = np.asarray(change(images[8:], np.arange(8, 16, dtype=np.int32)))
    np.testing.assert_array_equal(part, all_at_once[8:])
    assert (all_at_once != images).any((1, 2, 3)).sum() >= 14
    key, image = jax.random.key(3), images[0] / np.float32(255)
    level_key, chain_key = jax.random.split(key)
    level = int(jax.random.randint(level_key, (), 0, 5))
    links, strength = ((1, 0.6), (2, 0.6), (2, 0.8), (3, 0.8), (3, 1.0))[level]
    expected = jax.jit(chain)(chain_key, image, links, strength)
    np.testing.assert_allclose(jax.jit(one_chain)(key, image), expected, atol=1e-6)


def test_corrupted_answers_are_kept_for_one_model_alone(trained, cells, tmp_path):
    run = Workdir(shutil.copytree(trained, tmp_path / "run"))
    dataset, path = load_data(DataConfig(source=f"npz:{cells}", image_size=32)), tmp_path / "kept.json"

    def answers():
        return corrupted_answers(path, run, ONE_CHAIN, dataset, np.arange(8))

    asked = answers()
    kept = json.loads(path.read_text())
    path.write_text(json.dumps(kept | {"predicted": [[(row[0] + 1) % 3] for row in kept["predicted"]]}))
    np.testing.assert_array_equal(answers(), (asked + 1) % 3)
    # A model of the same step, which answers otherwise to the images as they are.
    predictions = run.evaluation("test").predictions
    predictions.write_text(predictions.read_text().replace("0.", "0.0", 1))
    np.testing.assert_array_equal(answers(), asked)
