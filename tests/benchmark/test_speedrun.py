"""What `benchmarks/speedrun.py` reads of the runs that it watches, and the commands that it starts."""

import importlib.util
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from absl import flags
from PIL import Image

from bloodcell_jax.data.synthetic import CLASS_NAMES, draw_cells

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "benchmarks" / "speedrun.py"


@pytest.fixture(scope="module")
def speedrun():
    """Return the script as a module; its flags have their defaults."""
    spec = importlib.util.spec_from_file_location("speedrun", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    flags.FLAGS(["speedrun", "--source=cells.zip", "--epochs=3", "--torch_epochs=5"])
    yield module
    flags.FLAGS.unparse_flags()
    for name in (
        "source",
        "config",
        "target",
        "seeds",
        "epochs",
        "torch_epochs",
        "image_size",
        "batch_size",
        "torch_batch_size",
        "side",
        "limit",
        "output",
    ):
        delattr(flags.FLAGS, name)


# Ten steps a line, then a line that an evaluation made longer; 100 and 50 images a second.
LINES = [
    {"step": 10, "epoch": 0.5, "perf/images_per_second": 100.0},
    {"step": 20, "epoch": 1.0, "perf/images_per_second": 50.0, "val/accuracy": 0.80},
    {"step": 30, "epoch": 1.5, "perf/images_per_second": 100.0, "val/accuracy": None},
    {"step": 40, "epoch": 2.0, "perf/images_per_second": 100.0, "val/accuracy": 0.95},
    {"step": 50, "epoch": 2.5, "perf/images_per_second": 100.0, "val/accuracy": 0.97},
]


def test_the_first_evaluation_that_reaches_the_target_ends_the_clock(speedrun):
    found = speedrun.times_of(LINES, 0.95, 32, seconds=60.0, compiling=12.5)
    assert (found["step"], found["epoch"], found["accuracy"]) == (40, 2.0, 0.95)
    assert (found["seconds"], found["compile_seconds"], found["seconds_without_compiling"]) == (60.0, 12.5, 47.5)
    # 10 steps of 32 images at each of the rates; what comes after the target is not in it.
    assert found["training_seconds"] == pytest.approx(320 / 100 + 320 / 50 + 320 / 100 + 320 / 100)


def test_a_run_without_the_target_has_no_times_and_its_best(speedrun):
    found = speedrun.times_of(LINES, 0.99, 32, seconds=60.0, compiling=12.5)
    assert all(found[name] is None for name in speedrun.TIMES)
    assert (found["best"], found["gave_up_after"]) == (0.97, 60.0)
    assert speedrun.times_of([], 0.99, 32, seconds=60.0, compiling=0.0)["best"] is None


def test_the_ratio_needs_every_run_of_both_sides(speedrun):
    def run(seconds):
        return dict.fromkeys(speedrun.TIMES, seconds)

    runs = {"bloodcell_jax": [run(10.0), run(20.0)], "torch_timm": [run(40.0), run(50.0)]}
    results = speedrun.results_of(runs, {"target": 0.95})
    assert results["ratio"]["seconds"] == pytest.approx(3.0)
    assert results["bloodcell_jax"]["seconds"] == {"mean": 15.0, "median": 15.0, "min": 10.0, "max": 20.0}
    assert (results["target"], results["torch_timm"]["reached"]) == (0.95, 2)
    runs["torch_timm"][1] = run(None)
    results = speedrun.results_of(runs, {})
    assert results["ratio"] is None
    assert results["torch_timm"]["reached"] == 1
    assert results["torch_timm"]["seconds"]["mean"] == 40.0


def test_jax_says_how_long_it_compiled(speedrun, caplog):
    """The words are JAX's own: another version that says it differently fails here, not in a result."""
    begun = time.monotonic()
    with jax.log_compiles():
        jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x) + len(LINES)).lower(jnp.ones((7, 7))).compile()
    seconds = speedrun.compile_seconds(caplog.text)
    assert 0 < seconds < time.monotonic() - begun
    assert speedrun.compile_seconds("Finished tracing f for jit in 3.0 sec\n") == 0
    said = (
        "Finished XLA compilation of jit(f) in 1.5 sec\nFinished jaxpr to MLIR module conversion jit(f) in 2e-1 sec\n"
    )
    assert speedrun.compile_seconds(said) == pytest.approx(1.7)


def test_both_sides_get_the_same_images_and_their_own_batches_and_lengths(speedrun, tmp_path):
    ours, other = (
        speedrun.command_of(side, 4, tmp_path / "run", tmp_path / "images", ["--config.model.drop_path=0"])
        for side in speedrun.SIDES
    )
    assert ours[1:3] == [str(ROOT / "launch.py"), "train"]
    for word in ("seed=4", "data.image_size=48", "train.batch_size=128", "stages[0].epochs=3.0"):
        assert f"--config.{word}" in ours
    assert {"--config=pbc_48px", "--config.data.source=zip:cells.zip", "--config.model.drop_path=0"} <= set(ours)
    assert other[1] == str(ROOT / "benchmarks" / "speedrun_torch.py")
    assert {"--seed=4", "--image_size=48", "--batch_size=32", "--epochs=5.0"} <= set(other)
    assert f"--images={tmp_path / 'images'}" in other


@pytest.mark.exhaustive
@pytest.mark.usefixtures("timm")
def test_both_sides_run_and_are_stopped_at_the_target(tmp_path):
    images, labels = draw_cells(120, seed=1, size=32)
    archive = tmp_path / "cells.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = tmp_path / "cell.png"
            Image.fromarray(image).save(path)
            file.write(path, f"{'val' if number % 4 == 0 else 'train'}/{CLASS_NAMES[label]}/{number}.png")
    output = tmp_path / "speedrun.json"
    words = ["--target=0.01", "--seeds=1", "--epochs=2", "--image_size=32", "--batch_size=16", f"--output={output}"]
    config = ROOT / "configs" / "pbc_48px.py"
    command = [sys.executable, PATH, f"--source={archive}", f"--config={config}", *words]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text())
    for side in ("bloodcell_jax", "torch_timm"):
        [run] = results[side]["runs"]
        assert 0 < run["training_seconds"] < run["seconds"]
    assert results["bloodcell_jax"]["runs"][0]["compile_seconds"] > 1
    assert results["torch_timm"]["runs"][0]["compile_seconds"] == 0
    assert results["ratio"]["seconds"] > 0
    # The same command again runs nothing, and other settings do not mix with these runs.
    again = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert json.loads(output.read_text()) == results
    other = subprocess.run([*map(str, command), "--target=0.02"], capture_output=True, text=True)
    assert other.returncode == 1
    assert "another target" in other.stderr
