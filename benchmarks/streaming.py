"""The streaming feed: its images per second, how long a step waits for it, and its cost as the data grow.

    python benchmarks/streaming.py --folder=/var/tmp/streaming --output=benchmarks/results/streaming-cpu.json

The script makes datasets of synthetic images in `--folder` with `bloodcell_jax.data.tfds_sets.prepare`, and keeps them
for the next time.

- `feed`: images per second of the stream alone, by number of workers. Workers decode and this process collects. The
  numbers of workers take turns, and the median of `--windows` is the result.
- `step`: the share of a training step of `--model` that waits for data, as `perf/data_wait` of a run. The first step is
  left out, because it waits for the first batch while the step compiles.
- `growth`: small images, 20,000 to 2,000,000 rows. Seconds until the dataset is open (index and hash), until it is
  split, and until the first batch; and the memory of this process and of its workers, sampled from batch to batch. Each
  size is measured in a process of its own.
"""

import io
import json
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
from absl import app, flags
from PIL import Image

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.sampling import create_sampler
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.data.splits import split_dataset
from bloodcell_jax.data.stored_images import StoredImages
from bloodcell_jax.data.streaming import open_stream
from bloodcell_jax.data.synthetic import CLASS_NAMES, draw_cells
from bloodcell_jax.data.tfds_sets import prepare

FLAGS = flags.FLAGS
flags.DEFINE_string("folder", None, "folder for the datasets", required=True)
flags.DEFINE_string("output", None, "JSON file to write")
flags.DEFINE_integer("images", 4000, "images in the dataset of `feed` and `step`")
flags.DEFINE_integer("image_size", 96, "side of these images in pixels")
flags.DEFINE_integer("batch_size", 64, "images in a batch")
flags.DEFINE_multi_integer("workers", [0, 1, 2], "numbers of processes that decode")
flags.DEFINE_integer("windows", 5, "timed repetitions of `feed`", lower_bound=1)
flags.DEFINE_integer("window_batches", 40, "batches in a repetition")
flags.DEFINE_string("model", "convnext_atto", "network of `step`")
flags.DEFINE_integer("steps", 30, "training steps of `step`")
flags.DEFINE_multi_integer("rows", [20_000, 200_000, 2_000_000], "sizes of the dataset of `growth`")
flags.DEFINE_integer("growth_seconds", 60, "seconds for which each size of `growth` is read")

SMALL = 16


class _Numbered:
    """A few images again and again. Each copy has its number in its first pixel, so that no two copies are equal."""

    name = "all"

    def __init__(self, few: np.ndarray, count: int):
        self._few, self._count = few, count

    def __len__(self) -> int:
        return self._count

    def __getitems__(self, numbers: list[int]) -> list[bytes]:
        return [self._encoded(number) for number in numbers]

    def _encoded(self, number: int) -> bytes:
        image = self._few[number % len(self._few)].copy()
        image[0, 0], image[0, 1, 0] = [number % 256, number // 256 % 256, number // 65536], 255
        content = io.BytesIO()
        Image.fromarray(image).save(content, "ppm")
        return content.getvalue()


def dataset_name(count: int, image_size: int) -> str:
    """Return the name of a dataset of `count` images, and make the dataset if it is missing."""
    name = f"cells_{count}_{image_size}"
    if not (Path(FLAGS.folder) / "blood_cells" / name).exists():
        few, labels = draw_cells(min(count, 512), size=image_size)
        images = StoredImages([_Numbered(few, count)], image_size, f"{count} cells", fingerprint=name)
        ids = tuple(map(str, range(count)))
        prepare(Dataset(images, np.resize(labels, count), CLASS_NAMES, ids, f"{count} cells"), FLAGS.folder, name)
    return f"tfds:blood_cells/{name}"


def open_dataset(count: int, image_size: int) -> Dataset:
    """Return the dataset with its images on the disk."""
    return load_source(dataset_name(count, image_size), image_size=image_size, data_dir=FLAGS.folder, in_memory=False)


class _Plan:
    """The batches of a sampler, one after the other."""

    def __init__(self, dataset: Dataset, batch_size: int):
        self._sampler = create_sampler("natural", dataset.labels, np.arange(len(dataset), dtype=np.int32), seed=0)
        self._batch_size = batch_size

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, step: int, /) -> np.ndarray:
        return self._sampler.indices(step * self._batch_size, (step + 1) * self._batch_size)


def measure_feed() -> dict[str, dict]:
    """Return the images per second of the stream alone, by number of workers."""
    dataset = open_dataset(FLAGS.images, FLAGS.image_size)
    plan = _Plan(dataset, FLAGS.batch_size)
    rates: dict[int, list[float]] = {workers: [] for workers in FLAGS.workers}
    for _ in range(FLAGS.windows):
        for workers, measured in rates.items():
            with open_stream(dataset.images, plan, workers=workers) as batches:
                for _ in range(8 * max(workers, 1)):  # These batches may be ready before the clock starts.
                    next(batches)
                start = time.perf_counter()
                for _ in range(FLAGS.window_batches):
                    next(batches)
                seconds = time.perf_counter() - start
            measured.append(FLAGS.window_batches * FLAGS.batch_size / seconds)
    return {str(workers): {"images_per_second": statistics.median(m), "trials": m} for workers, m in rates.items()}


def measure_step() -> dict:
    """Return the time of a training step and the share that waits for data, resident and streaming."""
    import tempfile

    from bloodcell_jax.config import AugmentConfig, Config, DataConfig, ModelConfig, StageConfig, TrainConfig
    from bloodcell_jax.run.job import train_and_evaluate
    from bloodcell_jax.workdir import Workdir

    results = {}
    for feed in ("resident", "streaming"):
        data = DataConfig(
            source=dataset_name(FLAGS.images, FLAGS.image_size),
            data_dir=FLAGS.folder,
            image_size=FLAGS.image_size,
            group_duplicates=False,
            splits=(0.98, 0.01, 0.01),
            feed=feed,
        )
        config = Config(
            data=data,
            model=ModelConfig(variant=FLAGS.model, dtype="float32"),
            augment=AugmentConfig(),
            stages=[StageConfig(steps=FLAGS.steps)],
            train=TrainConfig(batch_size=FLAGS.batch_size, log_every=1),
        )
        with tempfile.TemporaryDirectory() as folder:
            train_and_evaluate(config, folder)
            lines = Workdir(Path(folder)).read_metrics()[2:]
        results[feed] = {
            "model": FLAGS.model,
            "step_ms": 1e3 * statistics.median(FLAGS.batch_size / line["perf/images_per_second"] for line in lines),
            "waiting_share_mean": statistics.mean(line["perf/data_wait"] for line in lines),
            "waiting_share_largest": max(line["perf/data_wait"] for line in lines),
        }
    return results


def _measure_growth(count: int, workers: int, seconds: float, pipe: Connection) -> None:
    start = time.perf_counter()
    dataset = open_dataset(count, SMALL)
    data_hash = dataset.sha256()
    opened = time.perf_counter() - start
    split_dataset(dataset, (0.98, 0.01, 0.01), seed=0)
    split = time.perf_counter() - start - opened
    samples = []
    with open_stream(dataset.images, _Plan(dataset, FLAGS.batch_size), workers=workers) as batches:
        next(batches)
        first = time.perf_counter() - start - opened - split
        read, next_sample = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            next(batches)
            read += 1
            if time.perf_counter() >= next_sample:
                next_sample += seconds / 12
                samples.append({"seconds": time.perf_counter() - start, "batches": read} | _memory())
    rate = read * FLAGS.batch_size / (time.perf_counter() - start - opened - split - first)
    times = {"open_s": opened, "split_s": split, "first_batch_s": first, "images_per_second": rate}
    pipe.send({"rows": count, "sha256": data_hash} | times | {"memory": samples})


def _memory() -> dict:
    """Return the memory of this process and of its workers in MB, without shared pages."""
    me = psutil.Process()
    workers = [child.memory_full_info().uss / 1e6 for child in me.children() if child.memory_info().rss > 30e6]
    return {"parent_mb": me.memory_full_info().uss / 1e6, "workers_mb": workers}


def measure_growth() -> list[dict]:
    """Return the times until the first batch and the memory for each number of rows."""
    results = []
    for count in FLAGS.rows:
        dataset_name(count, SMALL)
        receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(
            target=_measure_growth, args=(count, max(FLAGS.workers), FLAGS.growth_seconds, sender)
        )
        process.start()
        results.append(receiver.recv())
        process.join()
    return results


def main(_) -> None:
    # Growth comes first: its processes are forks of this one, which must not have started JAX.
    growth = measure_growth()
    from bloodcell_jax.run.environment import describe_machine

    settings = {name: FLAGS[name].value for name in ("images", "image_size", "batch_size", "windows")}
    results = {"environment": describe_machine() | settings | {"small_image_size": SMALL}, "growth": growth}
    results |= {"feed": measure_feed(), "step": measure_step()}
    for grown in results["growth"]:
        memory = [[sample["parent_mb"], *sample["workers_mb"]] for sample in grown["memory"]]
        times = ", ".join(f"{name} {grown[f'{name}_s']:.2f} s" for name in ("open", "split", "first_batch"))
        first, last = [round(mb) for mb in memory[0]], [round(mb) for mb in memory[-1]]
        print(f"{grown['rows']:>10,} rows: {times}, MB at first {first}, at last {last}")
    for workers, rate in results["feed"].items():
        print(f"{workers:>10} workers: {rate['images_per_second']:,.0f} images/s")
    for feed, step in results["step"].items():
        print(f"{feed:>10}: step {step['step_ms']:.0f} ms, waits {step['waiting_share_mean']:.2%} of it")
    if FLAGS.output:
        Path(FLAGS.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
