"""A stage on smaller images trains as if the data were that small."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax.config import AugmentConfig, Config, DataConfig, ModelConfig, StageConfig, TrainConfig, validate
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.errors import UsageError
from bloodcell_jax.models.input import resize, to_unit
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.preview import DRAWS, augmented_examples
from bloodcell_jax.train.stages import size_warning

CONFIG = Config(
    data=DataConfig(image_size=48),
    model=ModelConfig(variant="test_convnext2", dtype="float32"),
    augment=AugmentConfig(policy="d4|brightness"),
    stages=[StageConfig(steps=2, image_size=32), StageConfig(steps=2)],
    train=TrainConfig(batch_size=8),
)


def dataset_of(images):
    labels = np.arange(len(images), dtype=np.int32) % 3
    ids = tuple(map(str, range(len(images))))
    return Dataset(images, labels, ("a", "b", "c"), ids=ids, source="noise")


@pytest.fixture(scope="module")
def images():
    """Return 30 images of noise. Made smaller, none has a value between two levels, which may be rounded either way."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 48, 48, 3), dtype=np.uint8)
    levels = jax.image.resize(noise.astype(np.float32), (len(noise), 32, 32, 3), "cubic", antialias=True)
    distances = np.abs(np.asarray(levels) % 1 - 0.5).min(axis=(1, 2, 3))
    return noise[distances > 1e-4][:30]


def test_a_stage_shows_the_network_what_smaller_data_would(images, run_steps):
    shrunk = np.asarray(jnp.round(resize(to_unit(images), 32) * 255)).astype(np.uint8)
    small = replace(
        CONFIG, data=replace(CONFIG.data, image_size=32), stages=[StageConfig(steps=2), StageConfig(steps=2)]
    )
    metrics, state = run_steps(create_run(CONFIG, dataset_of(images)), 2)
    expected, expected_state = run_steps(create_run(small, dataset_of(shrunk)), 2)
    for ours, theirs in zip(metrics, expected, strict=True):
        np.testing.assert_allclose(ours["train/loss"], theirs["train/loss"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), state.params, expected_state.params)


def test_the_stage_after_it_is_compiled_for_whole_images(images):
    run = create_run(CONFIG, dataset_of(images))
    assert [stage.image_size for stage in run.stages] == [32, 48]


def test_a_run_that_ends_on_smaller_images_than_it_is_evaluated_on_is_warned_of():
    assert size_warning(CONFIG) is None
    smaller = replace(CONFIG, stages=[StageConfig(steps=2), StageConfig(steps=2, image_size=40)])
    assert re.search(r"40x40.*48x48.*data\.image_size=40", size_warning(smaller) or "")


def test_the_preview_shows_the_images_of_the_stage_that_sees_them(images):
    config = replace(CONFIG, augment=AugmentConfig(policy="none"))
    run = create_run(config, dataset_of(images))
    shown = augmented_examples(run)
    assert shown.shape[2:] == (48, 48, 3)
    originals = shown[:, 0]
    small = np.asarray(jnp.round(resize(to_unit(originals), 32) * 255)).astype(np.uint8)
    # Steps 0 and 1 are the first stage's. A pixel of its images is a square of pixels here.
    places = np.arange(48) * 32 // 48
    for step in range(2):
        assert abs(shown[:, 1 + step].astype(int) - small[:, places][:, :, places]).max() <= 1
    for step in range(2, DRAWS):
        np.testing.assert_array_equal(shown[:, 1 + step], originals)


def test_a_stage_on_larger_images_than_there_are_is_refused():
    with pytest.raises(UsageError, match=r"stages\[1\]\.image_size=96.*data\.image_size=48"):
        validate(replace(CONFIG, stages=[StageConfig(steps=1), StageConfig(steps=1, image_size=96)]))
