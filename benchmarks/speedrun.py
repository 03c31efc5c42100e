"""Time to accuracy: the seconds from the start of the process to a validation accuracy, as a mean over seeds.

    python benchmarks/speedrun.py --target=0.85 --output=speedrun.json -- --config.data.source=zip:pbc96.zip

Each seed is a `launch.py train` of its own with an empty compilation cache. This script watches it from outside and
stops it (SIGTERM) at the first evaluation that reaches the target. `seconds` is the whole time: imports, data,
compilation, evaluations, checkpoints. `training_seconds` is the time of the steps alone on the clock of the run. Flags
after `--` go to `train`.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

from bloodcell_jax.run.environment import describe_machine
from bloodcell_jax.workdir import Workdir

FLAGS = flags.FLAGS
flags.DEFINE_string("config", "pbc_scratch", "configuration, as in train")
flags.DEFINE_float("target", 0.85, "validation accuracy", lower_bound=0, upper_bound=1)
flags.DEFINE_integer("seeds", 5, "number of runs", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write")

LAUNCH = Path(__file__).resolve().parents[1] / "launch.py"


def run_seed(seed: int, folder: Path, words: list[str]) -> dict:
    """Train until the target is reached, and return the times; they are None if it is not reached.

    Raises:
      SystemExit: the run failed.
    """
    workdir = folder / f"seed_{seed}"
    command = [sys.executable, str(LAUNCH), "train", f"--config={FLAGS.config}", f"--workdir={workdir}"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / f"cache_{seed}")}
    start = time.monotonic()
    process = subprocess.Popen([*command, f"--config.seed={seed}", *words], env=environment, stdout=subprocess.DEVNULL)
    while True:
        ended = process.poll() is not None
        lines = Workdir(workdir).read_metrics()
        reached = [line for line in lines if line.get("val/accuracy", 0) >= FLAGS.target]
        if reached or ended:
            break
        time.sleep(0.1)
    seconds = time.monotonic() - start
    process.send_signal(signal.SIGTERM)
    if process.wait() not in (0, 75):
        raise SystemExit(f"seed {seed}: train ended with {process.returncode}")
    best = max((line["val/accuracy"] for line in lines if "val/accuracy" in line), default=None)
    if not reached:
        return {"seed": seed, "seconds": None, "training_seconds": None, "best": best}
    config = Workdir(workdir).read_config()
    return {
        "seed": seed,
        "seconds": seconds,
        "training_seconds": training_seconds(lines, reached[0]["step"], config.train.batch_size),
        "step": reached[0]["step"],
        "accuracy": reached[0]["val/accuracy"],
    }


def training_seconds(lines: list[dict], last: int, batch_size: int) -> float:
    """Return the seconds of the steps up to `last`, from the rates in the lines of the log."""
    seconds, before = 0.0, 0
    for line in lines:
        if line["step"] <= last:
            seconds += (line["step"] - before) * batch_size / line["perf/images_per_second"]
            before = line["step"]
    return seconds


def main(argv: list[str]) -> None:
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(FLAGS.seeds):
            runs.append(run_seed(seed, Path(folder), argv[1:]))
            print(runs[-1], flush=True)
    reached = [run for run in runs if run["seconds"] is not None]
    results = {"environment": describe_machine(), "target": FLAGS.target}
    results |= {"reached": len(reached), "runs": runs}
    for name in ("seconds", "training_seconds"):
        values = [run[name] for run in reached]
        results[name] = {"mean": statistics.fmean(values), "values": values} if values else None
    print(f"{len(reached)} of {len(runs)} reached {FLAGS.target}: {results['seconds']}, {results['training_seconds']}")
    if FLAGS.output:
        Path(FLAGS.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
