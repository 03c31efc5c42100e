"""A finished run or its model.safetensors, adapted to the cells of another laboratory.

bloodcell train --config=adapt:runs/pbc --workdir=runs/other_lab --config.data.source=folder:other_lab \\
    --config.data.samples_per_class=10

The rows of the head are taken over by class name, and classes that the run did not know are drawn. First the head is
fitted on features that the backbone computes once; then the last stage learns too, at a low rate. With
`data.samples_per_class`, training sees so many labels of each class; a class that has fewer shows all of its own.
The labels of val choose between the head alone and both stages. The run ends with a table of before and after on the
lab's held-out split.

On synthetic cells in other colors, the accuracy rose from 29.2 % to 49.5 % with 10 labels of each of the 8 classes (one
trial, seed 0, 400 held-out cells, a start of 7 epochs of quickstart on 1,600 cells). On 4 classes of
real cells of another laboratory, it rose from 27.5 % to 71.1 % with 10 labels of each (one trial, seed 0, 149 held-out
cells; the start: pbc_scratch at 64 px, 4 epochs, val accuracy 0.907). `benchmarks/adaptation.py` repeats this with more
draws. The time on a machine without other work has not been measured yet.
"""

from dataclasses import replace
from pathlib import Path

from bloodcell_jax.config import Config, DataConfig, OptimizerConfig, StageConfig, TrainConfig
from bloodcell_jax.errors import UsageError
from bloodcell_jax.weights.catalog import find_weights
from bloodcell_jax.weights.model_file import read_model_record
from bloodcell_jax.workdir import Workdir


def get_config(arg: str = "") -> Config:
    """Return the configuration that adapts the run in `arg`, a workdir or the file of its model.

    Raises:
      UsageError: `arg` is empty.
      DataError: it is no model of a run.
    """
    if not arg:
        raise UsageError("--config=adapt: name the run to start from, a workdir or a model file, as in adapt:runs/pbc")
    workdir = Workdir(Path(arg).expanduser())
    run = workdir.read_config() if workdir.config.exists() else read_model_record(find_weights(arg)).config
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
