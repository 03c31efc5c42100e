"""What a few labels of another laboratory are worth: a finished run, adapted to it by `--config=adapt`.

    python benchmarks/adaptation.py --run=runs/pbc --source=zip:cells.zip --output=adaptation.json -- \\
        '--config.data.exclude=basophil/**'
    python benchmarks/adaptation.py --run=runs/demo --labels=10 --output=recolored.json

Each draw is a `launch.py train` of its own: its seed decides the split, which labels are seen, and the order. Half of
the lab's cells is held out (`test`), a twentieth is `val`, and the labels come from the rest. Without `--source`, the
lab is synthetic cells whose channels are mixed: another stain. Flags after `--` go to `train`.

`before` is the start model on the same held-out cells, as a forced choice among the lab's classes. `balanced` is the
mean recall over the classes with at least 10 cells in the whole source. `seconds` is the whole process, imports and
compilation included.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from bloodcell_jax.data.synthetic import CLASS_NAMES, draw_cells
from bloodcell_jax.run.environment import describe_machine
from bloodcell_jax.weights.catalog import find_weights
from bloodcell_jax.weights.model_file import read_model_record
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import read_json

FLAGS = flags.FLAGS
flags.DEFINE_string("run", None, "workdir or model file to start from", required=True)
flags.DEFINE_string("source", None, "cells of the other lab; unset: synthetic cells in other colors")
flags.DEFINE_list("labels", ["5", "10", "20"], "labels of each class")
flags.DEFINE_integer("draws", 5, "runs for each number of labels", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write")

CHECKOUT = Path(__file__).resolve().parents[1]
LAUNCH, ADAPT = CHECKOUT / "launch.py", CHECKOUT / "configs" / "adapt.py"
CELLS, LEAST = 800, 10
# How much of red, green and blue (rows: new channels) another stain and white balance mix.
STAIN = np.array([[0.35, 0.15, 0.45], [0.3, 0.55, 0.1], [0.1, 0.75, 0.1]])


def recolored_lab(folder: Path, size: int) -> list[str]:
    """Write synthetic cells of other seeds in other colors, and return the flags that read them."""
    images, labels = draw_cells(CELLS, seed=1, size=size)
    np.savez(folder / "lab.npz", images=np.rint(images @ STAIN.T).clip(0, 255).astype(np.uint8), labels=labels)
    return [f"--config.data.source=npz:{folder / 'lab.npz'}", f"--config.data.class_names={CLASS_NAMES}"]


def adapt(workdir: Path, seed: int, labels: str, words: list[str]) -> dict:
    """Adapt once and return the scores before and after.

    Raises:
      SystemExit: the run failed.
    """
    command = [sys.executable, str(LAUNCH), "train", f"--config={ADAPT}:{FLAGS.run}", f"--workdir={workdir}", *words]
    command += [f"--config.seed={seed}", f"--config.data.samples_per_class={labels}"]
    start = time.monotonic()
    done = subprocess.run([*command, "--config.data.splits=(0.45,0.05,0.5)"], stdout=subprocess.DEVNULL, check=False)
    seconds = time.monotonic() - start
    if done.returncode:
        raise SystemExit(f"seed {seed}: train ended with {done.returncode}")
    folder = Workdir(workdir).evaluation("test")
    splits = read_json(workdir / "environment.json")["data"]["splits"].values()
    counts = {name: sum(split["per_class"][name] for split in splits) for name in next(iter(splits))["per_class"]}
    before, after = (summary(read_json(path), counts) for path in (folder.before, folder.metrics))
    return {"seed": seed, "seconds": seconds, "before": before, "after": after}


def summary(metrics: dict, counts: dict[str, int]) -> dict:
    """Return the scores that are compared; `counts` are the cells of each class in the whole source."""
    recalls = {name: scores["recall"] for name, scores in metrics["per_class"].items()}
    balanced = statistics.fmean(recall for name, recall in recalls.items() if counts[name] >= LEAST)
    return {"accuracy": metrics["accuracy"], "balanced": balanced, "f1_macro": metrics["f1_macro"], "n": metrics["n"]}


def main(argv: list[str]) -> None:
    results = {"environment": describe_machine(), "run": FLAGS.run, "source": FLAGS.source, "labels": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = read_model_record(find_weights(FLAGS.run)).config.data.image_size
        lab = [f"--config.data.source={FLAGS.source}"] if FLAGS.source else recolored_lab(folder, size)
        for labels in FLAGS.labels:
            runs = [adapt(folder / f"{labels}_{seed}", seed, labels, [*lab, *argv[1:]]) for seed in range(FLAGS.draws)]
            scores = ("accuracy", "balanced", "f1_macro")
            means: dict = {
                when: {score: statistics.fmean(run[when][score] for run in runs) for score in scores}
                for when in ("before", "after")
            }
            means["seconds"] = statistics.fmean(run["seconds"] for run in runs)
            results["labels"][labels] = {"mean": means, "runs": runs}
            print(f"{labels} labels a class, mean of {len(runs)} draws: {means}", flush=True)
    if FLAGS.output:
        Path(FLAGS.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
