"""Time to accuracy: the seconds from the start of a process to a validation accuracy, beside a plain PyTorch script.

    python benchmarks/speedrun.py --source=pbc96.zip --output=benchmarks/results/speedrun-atto-cpu.json

Both sides train ConvNeXt-Atto from random weights on the same images, in processes of their own that take turns, seed
by seed. Ours is `launch.py train` with an empty compilation cache; the other is `speedrun_torch.py`: timm's network and
RandAugment, and PyTorch's AdamW. This script watches `metrics.jsonl` of either from outside, and stops the process
(SIGTERM) at the first evaluation that reaches the target. Of each run it keeps

* `seconds`: the whole time, from the start of the process to that evaluation: imports, data, compilation, evaluations,
  checkpoints.
* `compile_seconds`: what JAX says that it spent on lowering and compiling (`JAX_LOG_COMPILES`); tracing is not in it.
  PyTorch runs eagerly and has none. `seconds_without_compiling` is the difference.
* `training_seconds`: of the steps alone, by the rates in `metrics.jsonl`.

`--source` is a zip of `train/<class>/` and `val/<class>/`. It is unpacked for the other side before the clock starts.
Flags after `--` go to `train`. Run it on cores that nothing else uses, such as `taskset -c 0,1 python ...`. A run that
`--output` holds already is not run again, so a measurement that was stopped goes on.
"""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from absl import app, flags

from bloodcell_jax.run.environment import describe_machine
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import read_json

FOLDER = Path(__file__).resolve().parent
SIDES = ("bloodcell_jax", "torch_timm")
TIMES = ("seconds", "compile_seconds", "seconds_without_compiling", "training_seconds")
# What the processes may end with: done, stopped with the state saved, and stopped by the signal itself.
_ENDS = (0, 75, -signal.SIGTERM)
_SETTINGS = ("config", "target", "epochs", "torch_epochs", "image_size", "batch_size", "torch_batch_size")
# What the runs of one file have in common.
_SAME = (*_SETTINGS, "words", "machine", "processor", "cores", "versions")
_COMPILED = re.compile(r"Finished (?:XLA compilation|jaxpr to MLIR module conversion) .* in ([0-9.e+-]+) sec")
_POLL_SECONDS = 0.1

FLAGS = flags.FLAGS
flags.DEFINE_string("source", None, "zip of train/<class>/ and val/<class>/", required=True)
flags.DEFINE_string("config", "pbc_48px", "configuration of our side, as in train")
flags.DEFINE_float("target", 0.95, "validation accuracy", lower_bound=0, upper_bound=1)
flags.DEFINE_integer("seeds", 5, "runs of each side", lower_bound=1)
flags.DEFINE_float("epochs", 10.0, "length of our runs: the learning rate falls to 0 at the end", lower_bound=0.1)
flags.DEFINE_float("torch_epochs", 30.0, "the same of the other side's runs", lower_bound=0.1)
flags.DEFINE_integer("image_size", 48, "side of the images of both sides in pixels")
flags.DEFINE_integer("batch_size", 128, "images of a step of ours")
flags.DEFINE_integer("torch_batch_size", 32, "images of a step of the other side")
flags.DEFINE_multi_enum("side", list(SIDES), SIDES, "what is measured; may be repeated")
flags.DEFINE_float("limit", 3600.0, "seconds after which a run ends without the target")
flags.DEFINE_string("output", None, "JSON file to write")


def command_of(side: str, seed: int, workdir: Path, images: Path, words: list[str]) -> list[str]:
    """Return the command of a run; `images` is the folder that the source was unpacked to."""
    common = {"workdir": workdir}
    if side == "torch_timm":
        common |= {"images": images, "seed": seed, "epochs": FLAGS.torch_epochs}
        common |= {"image_size": FLAGS.image_size, "batch_size": batch_size_of(side)}
        return [
            sys.executable,
            str(FOLDER / "speedrun_torch.py"),
            *(f"--{name}={text}" for name, text in common.items()),
        ]
    fields = {"seed": seed, "data.source": f"zip:{FLAGS.source}", "data.image_size": FLAGS.image_size}
    fields |= {"stages[0].epochs": FLAGS.epochs, "train.batch_size": batch_size_of(side)}
    common |= {"config": FLAGS.config} | {f"config.{name}": value for name, value in fields.items()}
    launch = FOLDER.parent / "launch.py"
    return [sys.executable, str(launch), "train", *(f"--{name}={text}" for name, text in common.items()), *words]


def batch_size_of(side: str) -> int:
    """Return the images of a step."""
    return FLAGS.torch_batch_size if side == "torch_timm" else FLAGS.batch_size


def measure(command: list[str], workdir: Path, batch_size: int, target: float, limit: float) -> dict[str, Any]:
    """Run a command until it logs the target, ends, or takes too long, and return its times: None without the target.

    Raises:
      SystemExit: the command failed.
    """
    said = workdir.parent / f"{workdir.name}.log"
    settings = {"JAX_COMPILATION_CACHE_DIR": f"{workdir}_cache", "JAX_LOG_COMPILES": "1"}
    with said.open("w", encoding="utf-8") as log:
        start = time.monotonic()
        process = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log)
        while True:
            ended = process.poll() is not None
            lines, seconds = Workdir(workdir).read_metrics(), time.monotonic() - start
            if ended or seconds > limit or first_that_reaches(lines, target) is not None:
                break
            time.sleep(_POLL_SECONDS)
        spent = compile_seconds(said.read_text(encoding="utf-8", errors="replace"))
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    if code not in _ENDS:
        raise SystemExit(f"{' '.join(command)} ended with {code}:\n{said.read_text(errors='replace')[-2_000:]}")
    return times_of(lines, target, batch_size, seconds=seconds, compiling=spent)


def first_that_reaches(lines: list[dict[str, Any]], target: float) -> dict[str, Any] | None:
    """Return the first line of a log whose validation accuracy is the target or more."""
    return next((line for line in lines if (line.get("val/accuracy") or 0) >= target), None)


def times_of(
    lines: list[dict[str, Any]], target: float, batch_size: int, *, seconds: float, compiling: float
) -> dict[str, Any]:
    """Return the entry of a run in the results, from its log, its whole time and what it spent on compiling."""
    best = max((line["val/accuracy"] for line in lines if line.get("val/accuracy") is not None), default=None)
    reached = first_that_reaches(lines, target)
    if reached is None:
        return dict.fromkeys(TIMES) | {"best": best, "gave_up_after": seconds}
    return {
        "seconds": seconds,
        "compile_seconds": compiling,
        "seconds_without_compiling": seconds - compiling,
        "training_seconds": training_seconds(lines, reached["step"], batch_size),
        "step": reached["step"],
        "epoch": reached["epoch"],
        "accuracy": reached["val/accuracy"],
    }


def training_seconds(lines: list[dict[str, Any]], last: int, batch_size: int) -> float:
    """Return the seconds of the steps up to `last`, from the rates in the lines of the log."""
    seconds, before = 0.0, 0
    for line in lines:
        if line["step"] <= last:
            seconds += (line["step"] - before) * batch_size / line["perf/images_per_second"]
            before = line["step"]
    return seconds


def compile_seconds(said: str) -> float:
    """Return the seconds of lowering and compiling that JAX named on standard error."""
    return sum(float(seconds) for seconds in _COMPILED.findall(said))


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the entry of a side: its runs, and the mean, median and range of each time over those that reached."""
    reached = [run for run in runs if run["seconds"] is not None]
    result: dict[str, Any] = {"reached": len(reached), "runs": runs}
    for name in TIMES:
        values = [run[name] for run in reached]
        if values:
            facts = {"mean": statistics.fmean(values), "median": statistics.median(values)}
            result[name] = facts | {"min": min(values), "max": max(values)}
    return result


def results_of(runs: dict[str, list[dict[str, Any]]], facts: dict[str, Any]) -> dict[str, Any]:
    """Return what is written: facts, sides, and how many times as long as ours the other takes if all runs reached."""
    results = facts | {side: summary(of_side) for side, of_side in runs.items()}
    whole = len(runs) == len(SIDES) and all(run["seconds"] is not None for of_side in runs.values() for run in of_side)
    ours, other = SIDES
    names = ("seconds", "seconds_without_compiling", "training_seconds")
    results["ratio"] = (
        {name: results[other][name]["mean"] / results[ours][name]["mean"] for name in names} if whole else None
    )
    return results


def runs_so_far(facts: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the runs by side that `--output` holds.

    Raises:
      SystemExit: they were measured with other settings, or elsewhere.
    """
    if not FLAGS.output or not Path(FLAGS.output).exists():
        return {}
    held = read_json(Path(FLAGS.output))
    here, there = (
        {key: value for key, value in (known | known["environment"]).items() if key in _SAME} for known in (facts, held)
    )
    other = [key for key, value in here.items() if there.get(key) != value]
    if other:
        raise SystemExit(f"{FLAGS.output} holds runs with another {', '.join(other)}; name another file")
    return {side: held[side]["runs"] for side in SIDES if side in held}


def main(argv: list[str]) -> None:
    facts = {"environment": describe_machine(), "words": argv[1:]} | {name: FLAGS[name].value for name in _SETTINGS}
    runs = runs_so_far(facts)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(FLAGS.source) as archive:
            archive.extractall(folder / "images")
        turns = [(seed, side) for seed in range(FLAGS.seeds) for side in FLAGS.side]
        for seed, side in turns:
            if any(run["seed"] == seed for run in runs.setdefault(side, [])):
                continue
            workdir = folder / f"{side}_{seed}"
            command = command_of(side, seed, workdir, folder / "images", argv[1:])
            run = measure(command, workdir, batch_size_of(side), FLAGS.target, FLAGS.limit)
            runs[side].append({"seed": seed} | run)
            print(side, runs[side][-1], flush=True)
            if FLAGS.output:  # after each run: it takes an hour until the last
                text = json.dumps(results_of(runs, facts), indent=2)
                Path(FLAGS.output).write_text(text + "\n", encoding="utf-8")
    results = results_of(runs, facts)
    for side, of_side in runs.items():
        reached = results[side]["reached"]
        print(f"{side}: {reached} of {len(of_side)} reached {FLAGS.target}; seconds {results[side].get('seconds')}")
    print(f"ratio: {results['ratio']}")


if __name__ == "__main__":
    app.run(main)
