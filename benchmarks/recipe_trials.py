"""What each lever of the recipe is worth: short runs from random weights that differ from one baseline in one thing.

    python benchmarks/recipe_trials.py --source=pbc96.zip --workdir=runs/trials \\
        --output=benchmarks/results/recipe-trials.json
    python benchmarks/recipe_trials.py --source=pbc96.zip --workdir=runs/trials --trial=muon --trial=cutmix

The baseline is `pbc_48px` with AdamW, for 10 epochs in batches of 64. A lever whose step costs far more gets fewer
epochs, so that its run takes about as long: `epochs` of its entry says so. Each trial is a `launch.py train` of its own
and `evaluate --suite=chains` after it; a trial that `--output` holds already is not run again, and one that was killed
is resumed. `seconds_trained` is of the steps, as the `environment.json` of the run has it.

No trial is looked at on another laboratory's cells: those are for the final look at a recipe.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from absl import app, flags

from bloodcell_jax.config import AugmentConfig
from bloodcell_jax.run.environment import describe_machine
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import read_json

FOLDER = Path(__file__).resolve().parent
LAUNCH = FOLDER.parent / "launch.py"
MILD = AugmentConfig().policy
# Each image goes through about four of these operations, most of them stronger than one laboratory's images differ.
STRONG = "|".join(
    (
        "d4",
        "affine:degrees=180,shear=0.2,translate=0.2,zoom=0.2,p=0.5",
        "stain:scale=0.4,shift=0.05,p=0.5",
        "brightness:delta=0.3,p=0.3",
        "contrast:delta=0.5,p=0.3",
        "saturation:delta=0.7,p=0.3",
        "hue:delta=0.1,p=0.3",
        "channel_shift:delta=0.2,p=0.2",
        "color_degeneration:factor=1,p=0.15",
        "solarize:threshold=0.4..1,p=0.08",
        "posterize:bits=2..8,p=0.1",
        "equalize:p=0.05",
        "gaussian_blur:sigma=0..1.5,radius=5,p=0.2",
        "sharpness:factor=0..7,p=0.1",
        "gaussian_noise:sigma=0.2,p=0.2",
        "jpeg:quality=5..80,p=0.2",
        "grid_mask:ratio=0.6,fill=black,p=0.1",
        "cutout:size=0.6,fill=black,p=0.1",
    )
)
BLUR_NOISE_JPEG = "gaussian_blur:sigma=0..1.5,radius=5,p=0.2|gaussian_noise:sigma=0.2,p=0.2|jpeg:quality=5..80,p=0.2"
STAIN = "stain:scale=0.4,shift=0.05,p=0.5"
# What the baseline sets beside `pbc_48px`.
BASELINE = {
    "stages[0].optimizer.name": "adamw",
    "stages[0].optimizer.learning_rate": 2e-3,
    "train.batch_size": 64,
    "stages[0].epochs": 10.0,
}
# Muon with the batch that its products need to be cheap.
MUON = {"stages[0].optimizer.name": "muon", "stages[0].optimizer.learning_rate": 2.5e-3, "train.batch_size": 128}
CUSTOM_CNN = {
    "model.variant": "custom_cnn",
    "model.drop_path": 0.0,
    "model.layer_scale": "none",
    "stages[0].epochs": 3.0,
}

# What a trial sets beside the baseline, by its name.
TRIALS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "no moving average": {"train.ema_decay": "none", "train.ema_warmup": False},
    "muon": {"stages[0].optimizer.name": "muon"},
    "lion": {
        "stages[0].optimizer.name": "lion",
        "stages[0].optimizer.learning_rate": 3e-4,
        "stages[0].optimizer.weight_decay": 0.3,
    },
    "rate 4e-3": {"stages[0].optimizer.learning_rate": 4e-3},
    "mixup": {"augment.mix": "mixup:p=0.5"},
    "cutmix": {"augment.mix": "cutmix:p=0.5"},
    "fmix": {"augment.mix": "fmix:p=0.5"},
    "randaugment": {"augment.policy": "d4|randaugment:n=2,m=9"},
    "trivialaugment": {"augment.policy": "d4|trivialaugment"},
    "augmix": {"augment.policy": "d4|augmix"},
    "augmix with JSD": {"augment.policy": "d4|augmix", "train.jsd": 12.0, "stages[0].epochs": 4.0},
    "stain": {"augment.policy": f"{MILD}|{STAIN}"},
    "blur, noise and JPEG": {"augment.policy": f"{MILD}|{BLUR_NOISE_JPEG}"},
    "18 strong operations": {"augment.policy": STRONG},
    "focal loss": {"train.loss": "focal", "train.label_smoothing": 0.0},
    "no drop path": {"model.drop_path": 0.0},
    "layer scale 1e-6": {"model.layer_scale": 1e-6},
    "stem stride 2": {"model.stem_stride": 2, "stages[0].epochs": 4.0},
    "64 px": {"data.image_size": 64, "stages[0].epochs": 6.0},
    "custom CNN": CUSTOM_CNN,
    # The levers that gained, together.
    "custom CNN, muon": CUSTOM_CNN | MUON,
    "muon, 18 strong operations": MUON | {"augment.policy": STRONG},
    "muon, randaugment, stain, blur, noise and JPEG": MUON
    | {"augment.policy": f"d4|randaugment:n=2,m=9|{STAIN}|{BLUR_NOISE_JPEG}"},
    "muon, trivialaugment, stain, blur, noise and JPEG": MUON
    | {"augment.policy": f"d4|trivialaugment|{STAIN}|{BLUR_NOISE_JPEG}"},
}
_SCORES = ("accuracy", "balanced_accuracy", "f1_macro", "nll", "ece")

FLAGS = flags.FLAGS
flags.DEFINE_string("source", None, "zip of train/<class>/ and val/<class>/", required=True)
flags.DEFINE_string("workdir", None, "folder of the runs", required=True)
flags.DEFINE_multi_enum("trial", list(TRIALS), list(TRIALS), "what is tried; may be repeated; unset: everything")
flags.DEFINE_string("output", None, "JSON file to write, and to go on from", required=True)


def fields_of(name: str, source: str) -> dict[str, Any]:
    """Return the fields of `pbc_48px` that a trial overrides."""
    return BASELINE | {"data.source": f"zip:{source}"} | TRIALS[name]


def run_trial(name: str) -> dict[str, Any]:
    """Train and evaluate one trial, and return its entry in the results.

    Raises:
      SystemExit: a command failed.
    """
    workdir = Path(FLAGS.workdir) / name.replace(",", "").replace(" ", "_")
    fields = fields_of(name, FLAGS.source)
    call("train", workdir, "--config=pbc_48px", *(f"--config.{field}={value}" for field, value in fields.items()))
    call("evaluate", workdir, "--split=val", "--explain=0", "--tta", f"--output={workdir}/tta")
    call("evaluate", workdir, "--split=val", "--explain=0", "--suite=chains")
    evaluation = Workdir(workdir).evaluation("val")
    metrics, tta = read_json(evaluation.metrics), read_json(workdir / "tta" / "metrics.json")
    return {
        "epochs": fields["stages[0].epochs"],
        "fields": {field: value for field, value in fields.items() if field != "data.source"},
        "val": {score: metrics[score] for score in _SCORES},
        "val_tta": {score: tta[score] for score in _SCORES},
        "chains": read_json(evaluation.suite("chains"))["mean"]["balanced_accuracy"],
        "seconds_trained": read_json(Workdir(workdir).environment)["seconds_trained"],
        "cores": len(os.sched_getaffinity(0)),
    }


def call(verb: str, workdir: Path, *words: str) -> None:
    """Run a verb of the library on a workdir.

    Raises:
      SystemExit: it failed.
    """
    code = subprocess.run([sys.executable, str(LAUNCH), verb, f"--workdir={workdir}", *words], check=False).returncode
    if code:
        raise SystemExit(f"{verb} --workdir={workdir} ended with {code}")


def main(argv: list[str]) -> None:
    del argv
    output = Path(FLAGS.output)
    results = read_json(output) if output.exists() else {"environment": describe_machine(), "trials": {}}
    for name in FLAGS.trial:
        if name not in results["trials"]:
            results["trials"][name] = run_trial(name)
            output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
