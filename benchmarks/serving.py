"""`serve`: how long a request for one cell takes, and its throughput beside that of `predict`.

    python benchmarks/serving.py --workdir=runs/pbc --output=benchmarks/results/serving-atto-cpu.json

The script draws synthetic cells and writes them as JPEGs. The server runs in this process as the verb runs it; each
client is a process of its own that sends one cell after the other over one connection.

- `serve`: the clients send all their requests; seconds from the first to the last, and the latency of each request.
- `predict`: `predict_files` classifies as many files from the disk, without the start of the process.
- `zip`: one request with all cells in a zip.

The three take turns, `--windows` times after a warm-up. The latencies of all windows are pooled; of throughputs the
median is the result. The load of the machine by others is measured before each window. Where it is high, the processor
time of this process, which leaves out the clients, says more than the clock.
"""

import contextlib
import http.client
import io
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from absl import app, flags
from PIL import Image

from bloodcell_jax.data.synthetic import draw_cells
from bloodcell_jax.devices.allocator import tune_allocator
from bloodcell_jax.devices.settings import configure_jax
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.predict_files import predict_files
from bloodcell_jax.evaluate.prediction_outputs import PredictionOutputs
from bloodcell_jax.run.environment import describe_machine
from bloodcell_jax.serve.api import Api
from bloodcell_jax.serve.limits import Limits
from bloodcell_jax.serve.served_model import ServedModel
from bloodcell_jax.serve.server import HttpServer, open_listener

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "a finished run", required=True)
flags.DEFINE_integer("clients", 2, "processes that send requests", lower_bound=1)
flags.DEFINE_integer("requests", 500, "requests of each client", lower_bound=1)
flags.DEFINE_integer("file_size", 96, "side of the files in pixels")
flags.DEFINE_integer("windows", 5, "timed repetitions", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write")

_HOST = "127.0.0.1"
_DRAWN = 512


def draw_files() -> list[bytes]:
    """Return different cells as the content of JPEGs."""
    cells, _ = draw_cells(_DRAWN, size=FLAGS.file_size)
    contents = []
    for cell in cells:
        content = io.BytesIO()
        Image.fromarray(cell).save(content, "jpeg", quality=92)
        contents.append(content.getvalue())
    return contents


@contextlib.contextmanager
def running(classifier: Classifier):
    """Run a compiled server in a thread; yields its port."""
    served = ServedModel(classifier)
    served.worker.prepare().result()
    api = Api(served, Limits())
    api.is_ready = True
    server = HttpServer(api, _HOST)
    with open_listener(_HOST, 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.end()
            thread.join()
            served.close(10)


def send_requests(port: int, contents: list[bytes], start: Any) -> list[float]:
    """Send one cell after the other, once all clients are there; return the latency of each in seconds."""
    connection = http.client.HTTPConnection(_HOST, port)
    connection.connect()
    start.wait()
    latencies = []
    for content in contents:
        begin = time.perf_counter()
        connection.request("POST", "/predict", content, {"Content-Type": "image/jpeg"})
        response = connection.getresponse()
        document = json.loads(response.read())
        latencies.append(time.perf_counter() - begin)
        if response.status != 200 or len(document["images"]) != 1:
            raise RuntimeError(f"{response.status}: {document}")
    return latencies


def ask_by_clients(pool: Any, manager: Any, port: int, contents: list[bytes]) -> tuple[float, list[float]]:
    """Return the seconds that all clients took, and all latencies."""
    start = manager.Barrier(FLAGS.clients + 1)
    own = [np.roll(np.arange(FLAGS.requests), number * 97) % len(contents) for number in range(FLAGS.clients)]
    jobs = [pool.apply_async(send_requests, (port, [contents[i] for i in rows], start)) for rows in own]
    start.wait()
    begin = time.perf_counter()
    latencies = [latency for job in jobs for latency in job.get()]
    return time.perf_counter() - begin, latencies


def ask_for_a_zip(port: int, content: bytes) -> float:
    """Return the seconds of one request with all cells."""
    begin = time.perf_counter()
    connection = http.client.HTTPConnection(_HOST, port)
    connection.request("POST", "/predict", content, {"Content-Type": "application/zip"})
    response = connection.getresponse()
    if response.status != 200 or json.loads(response.read())["unreadable"]:
        raise RuntimeError(f"the zip was not answered: {response.status}")
    return time.perf_counter() - begin


def measure(classifier: Classifier, folder: Path, contents: list[bytes], count: int) -> dict[str, Any]:
    """Return the seconds of each window, and all latencies."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(count):
            file.writestr(f"{number}.jpg", contents[number % len(contents)])
    seconds: dict[str, list[float]] = {"serve": [], "predict": [], "zip": []}
    processor = {name: [] for name in seconds}
    latencies, busy = [], []
    processes = multiprocessing.get_context("spawn")
    with running(classifier) as port, processes.Pool(FLAGS.clients) as pool, processes.Manager() as manager:
        for window in range(FLAGS.windows + 1):
            others = psutil.cpu_percent(interval=2)
            marks = [time.process_time()]
            taken, found = ask_by_clients(pool, manager, port, contents)
            marks.append(time.process_time())
            begin = time.perf_counter()
            predict_files(lambda: classifier, [str(folder)], PredictionOutputs(Path(os.devnull)), strict=True)
            predicted = time.perf_counter() - begin
            marks.append(time.process_time())
            zipped = ask_for_a_zip(port, archive.getvalue())
            marks.append(time.process_time())
            if window:  # The first round warms up.
                busy.append(others)
                latencies += found
                for name, value, spent in zip(seconds, (taken, predicted, zipped), np.diff(marks), strict=True):
                    seconds[name].append(value)
                    processor[name].append(float(spent))
    return {"seconds": seconds, "processor": processor, "latencies": latencies, "busy": busy}


def main(_) -> None:
    configure_jax()
    classifier, count = Classifier.from_workdir(FLAGS.workdir), FLAGS.clients * FLAGS.requests
    contents = draw_files()
    with tempfile.TemporaryDirectory() as name:
        for number in range(count):
            Path(name, f"{number:06}.jpg").write_bytes(contents[number % len(contents)])
        found = measure(classifier, Path(name), contents, count)
    rates = {name: count / statistics.median(trials) for name, trials in found["seconds"].items()}
    spent = {name: 1000 * statistics.median(trials) / count for name, trials in found["processor"].items()}
    p50, p95, p99 = (1000 * float(np.quantile(found["latencies"], share)) for share in (0.5, 0.95, 0.99))
    results = {
        "images_per_second": rates,
        "ratio_to_predict": {name: rates[name] / rates["predict"] for name in ("serve", "zip")},
        "latency_ms": {"p50": p50, "p95": p95, "p99": p99, "largest": 1000 * max(found["latencies"])},
        "requests": len(found["latencies"]),
        "errors": 0,  # An error ends the script.
        "seconds": found["seconds"],
        "processor_ms_per_image": spent,
        "machine_busy_percent": {"mean": statistics.mean(found["busy"]), "largest": max(found["busy"])},
    }
    print(f"{len(found['latencies']):,} requests: p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms, no error")
    for name, rate in rates.items():
        ratio = rate / rates["predict"]
        print(f"{name:>8}: {rate:,.0f} images/s, {ratio:.2f} of predict's; {spent[name]:.1f} ms of processor an image")
    if FLAGS.output:
        names = ("clients", "requests", "file_size", "windows")
        settings = {name: FLAGS[name].value for name in names} | {"model": classifier.config.model.variant}
        settings |= {"calibrated": classifier.calibration is not None, "batch_size_of_predict": classifier.batch_size}
        Path(FLAGS.output).write_text(
            json.dumps({"environment": describe_machine() | settings} | results, indent=2) + "\n"
        )


if __name__ == "__main__":
    tune_allocator()  # as the command line does
    app.run(main)
