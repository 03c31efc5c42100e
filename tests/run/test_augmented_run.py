"""A whole run with AugMix's consistency loss: three views of each image, and what the report shows of them."""

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
)
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.job import train_and_evaluate
from bloodcell_jax.run.preview import DRAWS, IMAGES, augmented_examples
from bloodcell_jax.workdir import Workdir


def config_of(cells):
    return Config(
        data=DataConfig(source=f"npz:{cells}", image_size=32),
        model=ModelConfig(variant="custom_cnn", dtype="float32"),
        augment=AugmentConfig(policy="d4|augmix:width=1,depth=1", block=2),
        stages=[
            StageConfig(
                steps=3,
                trainable=("head/.*", "!.*"),
                optimizer=OptimizerConfig(name="adamw", learning_rate=1e-3),
            )
        ],
        train=TrainConfig(batch_size=16, jsd=12.0, log_every=1),
        evaluate=EvaluateConfig(batch_size=32, explain=0),
    )


@pytest.mark.exhaustive
def test_a_run_with_the_consistency_loss_and_the_images_in_its_report(cells, tmp_path, capfd):
    config = config_of(cells)
    result = train_and_evaluate(config, tmp_path / "run")
    lines = Workdir(tmp_path / "run").read_metrics()
    # Cross-entropy of three classes at the start, and a divergence of at most 12 log 3.
    assert all(0 < line["train/loss"] < 2 + 12 * np.log(3) for line in lines)
    assert all(line["norm/gradient"] > 0 for line in lines)
    assert "augmentation: d4|augmix:width=1,depth=1\n" in capfd.readouterr().err
    page = result.report.read_text()
    assert "Images as training sees them" in page
    assert "<code>d4|augmix:width=1,depth=1</code>" in page

    sheet = np.asarray(Image.open(tmp_path / "run" / "report" / "training_pictures.png"))
    run = create_run(config)
    examples = augmented_examples(run)
    assert examples.shape == (IMAGES, 1 + DRAWS, 32, 32, 3)
    first = run.dataset.images[run.sampler.indices(0, IMAGES)]
    np.testing.assert_array_equal(examples[:, 0], first)
    np.testing.assert_array_equal(sheet[:32, :32, :3], first[0])
    np.testing.assert_array_equal(sheet[36:68, 72:104, :3], examples[1, 2])
    changed = abs(examples[:, 1:].astype(int) - examples[:, :1]).max((2, 3, 4))
    assert (changed > 0).mean() > 0.7
