"""`predict`: how long decoding takes alone, the network alone, and both at once.

    python benchmarks/prediction.py --output=benchmarks/results/prediction-cpu.json

The script draws synthetic cells, and writes them as JPEGs below a temporary folder. The network has random weights.

- `decoding`: the threads of `predict` read and decode all files, and nothing takes the images but a loop.
- `network`: the passes of `predict` over images that are in memory.
- `both`: `predict_files`, with the CSV, the counts and what the pages show; without the start of the process and the
  compilation.

The three take turns, `--windows` times after a warm-up, and the medians are the result. `ratio` is `both` over the
slower of the two others; 1 is the best that a machine with cores to spare can reach. On few cores the two share them,
so `sum` says how long one after the other would take. The load of the machine by others, which changes all three, is
measured before each window.
"""

import contextlib
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil
from absl import app, flags
from PIL import Image

from bloodcell_jax.config import Config, DataConfig, ModelConfig
from bloodcell_jax.data.decoding_pool import map_ahead
from bloodcell_jax.data.image_files import decode_sized
from bloodcell_jax.data.synthetic import CLASS_NAMES, draw_cells
from bloodcell_jax.devices.allocator import tune_allocator
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.predict_files import predict_files
from bloodcell_jax.evaluate.prediction_outputs import PredictionOutputs
from bloodcell_jax.models.registry import build_model, init_params
from bloodcell_jax.run.environment import describe_machine

FLAGS = flags.FLAGS
flags.DEFINE_integer("images", 10_000, "JPEG files", lower_bound=1)
flags.DEFINE_integer("image_size", 96, "side of the files and of the network's images in pixels")
flags.DEFINE_string("model", "convnext_atto", "network")
flags.DEFINE_string("dtype", "float32", "precision of the network")
flags.DEFINE_integer("windows", 5, "timed repetitions", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write")

_DRAWN = 512


def write_files(folder: Path) -> list[Path]:
    """Write the JPEGs: a few different cells, again and again."""
    cells, _ = draw_cells(min(_DRAWN, FLAGS.images), size=FLAGS.image_size)
    contents = []
    for cell in cells:
        content = io.BytesIO()
        Image.fromarray(cell).save(content, "jpeg", quality=92)
        contents.append(content.getvalue())
    paths = [folder / f"{number:06}.jpg" for number in range(FLAGS.images)]
    for number, path in enumerate(paths):
        path.write_bytes(contents[number % len(contents)])
    return paths


def create_classifier() -> Classifier:
    """Return a classifier with random weights."""
    model = ModelConfig(
        variant=FLAGS.model, num_classes=len(CLASS_NAMES), dtype=FLAGS.dtype, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    config = Config(data=DataConfig(image_size=FLAGS.image_size, class_names=CLASS_NAMES), model=model)
    params = init_params(build_model(model), jax.random.key(0), FLAGS.image_size)
    return Classifier(config, params, step=0, workdir=None)


def decode_all(paths: list[Path], classifier: Classifier) -> None:
    """Decode all files in the threads of `predict`, as far ahead of a loop as it does."""
    decode = lambda path: decode_sized(path.read_bytes(), path.name, classifier.geometry)  # noqa: E731
    with contextlib.closing(map_ahead(decode, paths, ahead=2 * classifier.batch_size)) as images:
        for _ in images:
            pass


def compute_all(images: np.ndarray, classifier: Classifier) -> None:
    """Classify images that are in memory."""
    starts = range(0, len(images), classifier.batch_size)
    for _ in classifier.answers_as_they_come(images[start : start + classifier.batch_size] for start in starts):
        pass


def predict_all(folder: Path, classifier: Classifier) -> None:
    """Do what the verb does."""
    predict_files(lambda: classifier, [str(folder)], PredictionOutputs(Path(os.devnull)), strict=True)


def measure(tasks: dict[str, Callable[[], None]]) -> dict[str, dict]:
    """Return the seconds of each task, and the share of the cores that was busy before it."""
    trials: dict[str, list[float]] = {name: [] for name in tasks}
    busy: list[float] = []
    for window in range(FLAGS.windows + 1):
        for name, task in tasks.items():
            others = psutil.cpu_percent(interval=1)
            start = time.perf_counter()
            task()
            seconds = time.perf_counter() - start
            if window:  # The first round warms up.
                trials[name].append(seconds)
                busy.append(others)
    results = {name: {"seconds": statistics.median(seconds), "trials": seconds} for name, seconds in trials.items()}
    return results | {"machine_busy_percent": {"mean": statistics.mean(busy), "largest": max(busy)}}


def main(_) -> None:
    classifier = create_classifier()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_files(folder)
        few = np.array([decode_sized(path.read_bytes(), "", classifier.geometry).pixels for path in paths[:_DRAWN]])
        images = few[np.arange(len(paths)) % len(few)]
        tasks = {
            "decoding": partial(decode_all, paths, classifier),
            "network": partial(compute_all, images, classifier),
            "both": partial(predict_all, folder, classifier),
        }
        results: dict[str, Any] = measure(tasks)
    alone = [results["decoding"]["seconds"], results["network"]["seconds"]]
    results |= {"ratio": results["both"]["seconds"] / max(alone), "sum": sum(alone)}
    settings = {name: FLAGS[name].value for name in ("images", "image_size", "model", "dtype", "windows")}
    for name in tasks:
        seconds = results[name]["seconds"]
        print(f"{name:>10}: {seconds:6.2f} s, {len(paths) / seconds:,.0f} images/s")
    print(f"both / slower: {results['ratio']:.3f}; one after the other: {results['sum']:.2f} s")
    print(f"cores busy before the windows: {results['machine_busy_percent']['mean']:.0f} % on average")
    if FLAGS.output:
        environment = describe_machine() | settings | {"batch_size": classifier.batch_size}
        Path(FLAGS.output).write_text(json.dumps({"environment": environment} | results, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    tune_allocator()  # as the command line does
    app.run(main)
