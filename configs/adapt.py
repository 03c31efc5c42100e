"""A trained model, adapted to the cells of another laboratory: a run, its model.safetensors, or pbc_cnn.

bloodcell train --config=adapt:runs/pbc --workdir=runs/other_lab --config.data.source=folder:other_lab \\
    --config.data.samples_per_class=10

The rows of the head are taken over by class name; those of classes that the run did not know are initialized at random.
First the head is fitted on features that the backbone computes once; then the last stage learns too, at a low rate.
With `data.samples_per_class`, training sees so many labels of each class; a class that has fewer shows all of its own.
The labels of val choose between the head alone and both stages. The run ends with a table of before and after on the
lab's held-out split.

On 4 classes of another laboratory's real cells, the accuracy rose from 0.257 to 0.591 with 10 labels of each, in 63 s
on 2 cores (means of 3 draws, 149 held-out cells; docs/evaluation.md). On synthetic cells in other colors, it rose from
0.286 to 0.508 with 10 labels of each of the 8 classes, in 39 s (means of 3 draws, 400 held-out cells, a start of 7
epochs of quickstart on 1,600 cells). `benchmarks/adaptation.py` repeats both.
"""

from dataclasses import replace
from pathlib import Path

from bloodcell_jax.config import Config, DataConfig, OptimizerConfig, StageConfig, TrainConfig
from bloodcell_jax.errors import UsageError
from bloodcell_jax.weights.catalog import find_weights
from bloodcell_jax.weights.model_file import read_model_record
from bloodcell_jax.weights.named_models import find_named_model
from bloodcell_jax.workdir import Workdir


def get_config(arg: str = "") -> Config:
    """Return the configuration that adapts the model `arg`: a workdir, the file of its model, or a model's name.

    Raises:
      UsageError: `arg` is empty, or the name of both a model and a file.
      DataError: it is no model of a run.
    """
    if not arg:
        raise UsageError("--config=adapt: name the model to start from, as in adapt:runs/pbc or adapt:pbc_cnn")
    workdir, named = Workdir(Path(arg).expanduser()), find_named_model(arg)
    if named is None and workdir.config.exists():
        run = workdir.read_config()
    else:
        run = read_model_record(named or find_weights(arg)).config
    return Config(
        data=DataConfig(sampler="balanced", image_size=run.data.image_size, crop=run.data.crop),
        model=replace(run.model, weights=arg, num_classes=None, drop_path=0.0),
        stages=[
            StageConfig(
                name="head",
                steps=200,
                trainable=("head.*", "!.*"),
                cached_views=8,
                optimizer=OptimizerConfig(name="adamw", learning_rate=1e-3, weight_decay=0.05),
            ),
            StageConfig(
                name="last-stage",
                steps=60,
                trainable=("head.*", "stage_3.*", "!.*"),
                optimizer=OptimizerConfig(
                    name="adamw", learning_rate=2e-4, warmup_steps=10, weight_decay=0.05, clip_norm=1.0
                ),
            ),
        ],
        # Few labels make short epochs; the checkpoints at the end of each stage are enough.
        train=TrainConfig(batch_size=32, label_smoothing=0.1, evaluate_every=1000, best_metric="val/loss"),
    )
