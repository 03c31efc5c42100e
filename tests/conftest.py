"""What every test needs before JAX is imported, and a run small enough to be started, killed and resumed.

Eight virtual devices, so that data parallelism is tested anywhere; and one compilation cache for all tests and the
processes they start. Under pytest-xdist every worker has a cache of its own: JAX writes an entry in place, so another
process could read half of it.
"""

import contextlib
import fcntl
import gc
import logging
import mmap
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import jaxlib
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_TORCH = str(ROOT / "tests" / "without_torch")
CACHE = ROOT / ".pytest_cache" / os.environ.get("PYTEST_XDIST_WORKER", "main")

# Compiling is most of the time of the tests, and half of it is LLVM's optimization: these programs run for moments.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


def _compiler_flags():
    """Return XLA's flags for these programs: the code that joins operations takes half of the time of compiling them.

    A training step of these tests took 10.9 s of processor time with it and 4.2 s without.
    """
    flag = "--xla_cpu_use_fusion_emitters"
    if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] != "1":
        return ""
    # XLA ends a process at a flag that its version does not know.
    path = Path(jaxlib.__file__).parent / "libjax_common.so"
    with path.open("rb") as library, mmap.mmap(library.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return f"{flag}=false" if content.find(flag[2:].encode()) >= 0 else ""


COMPILER_FLAGS = _compiler_flags()


def _xla_flags(devices):
    return f"--xla_force_host_platform_device_count={devices} {COMPILER_FLAGS}"


os.environ["XLA_FLAGS"] = _xla_flags(8)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE / "compilation")
os.environ["BLOODCELL_JAX_DATA"] = str(CACHE / "data")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

# Tracing makes many objects: searches for cycles among them took a sixth of the time of tests/train/test_packing.py.
gc.set_threshold(50_000, 10, 10)

LOGGER = logging.getLogger("bloodcell_jax")
UNTOUCHED = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate


@pytest.fixture(autouse=True)
def library_logger():
    """The command line takes over the library's logger, which caplog of pytest 8.0 then does not hear.

    It may have done so in a fixture of the module, before this one.
    """
    _untouch_logger()
    yield
    _untouch_logger()


def _untouch_logger():
    handlers, level, LOGGER.propagate = UNTOUCHED
    LOGGER.handlers[:] = handlers
    LOGGER.setLevel(level)


CONFIG = """
    from bloodcell_jax.config import *

    def get_config(arg=""):
        return Config(
            seed=3,
            data=DataConfig(source="npz:{cells}", image_size=32, class_names=("red", "green", "blue")),
            model=ModelConfig(variant="test_convnext2", dtype="float32", drop_path=0.2, layer_scale=0.5),
            # Each operation on color is a second of compiling, in each of many processes.
            augment=AugmentConfig(policy="d4|brightness"),
            stages=[
                StageConfig(
                    name="head",
                    steps=6,
                    trainable=("head/.*", "!.*"),
                    optimizer=OptimizerConfig(name="adamw", learning_rate=1e-2),
                ),
                StageConfig(
                    name="all",
                    steps=30,
                    optimizer=OptimizerConfig(name="lion", learning_rate=3e-4, warmup_steps=4, weight_decay=0.1),
                ),
            ],
            train=TrainConfig(
                batch_size=16, label_smoothing=0.1, ema_decay=0.8, log_every=2, evaluate_every=8, checkpoint_every=4
            ),
            evaluate=EvaluateConfig(batch_size=32, explain=2),
        )
"""


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Return what makes a file or folder once for all workers: (name, function that fills its path) -> path."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)

    def shared(name, make):
        path, made = folder / name, folder / f"{name}.made"
        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                make(path)
                made.touch()
        return path

    return shared


@pytest.fixture(scope="session")
def cells(shared):
    """Return the path of an npz of 120 noisy images of 32 px in three colors."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    images = rng.integers(0, 120, (120, 32, 32, 3), dtype=np.uint8)
    images[np.arange(120), :, :, labels] += rng.integers(0, 100, (120, 1, 1), dtype=np.uint8)
    return shared("cells.npz", lambda path: np.savez(path, images=images, labels=labels))


@pytest.fixture(scope="session")
def config_file(cells, shared):
    """Return the path of a configuration of two stages, 36 steps in all, on these images."""
    return shared("tiny.py", lambda path: path.write_text(textwrap.dedent(CONFIG.format(cells=cells))))


@pytest.fixture(scope="session")
def one_device():
    """Return the environment of a process that sees one device."""
    return {"XLA_FLAGS": _xla_flags(1)}


@pytest.fixture(scope="session")
def start(config_file):
    """Return a function that starts `launch.py train` in a process of its own, one device unless told.

    PyTorch, which the parity tests bring along, is hidden from it: no run needs it, and tensorboardX imports it for
    two seconds where it is found.
    """

    def start(workdir, *flags, config=config_file, devices=1, env=None):
        command = [sys.executable, "launch.py", "train", f"--config={config}", f"--workdir={workdir}", *flags]
        settings = {"XLA_FLAGS": _xla_flags(devices), "PYTHONPATH": WITHOUT_TORCH}
        settings |= env or {}
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


@pytest.fixture(scope="session")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed (tests/install_pytorch.py)")


@pytest.fixture(scope="session")
def timm(torch):
    """Return timm; a stand-in replaces torchvision if that is absent."""
    from bloodcell_jax.benchmark.peers.torchvision_stand_in import torchvision_stand_in

    with torchvision_stand_in(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("timm", reason="timm is not installed (tests/install_pytorch.py)")


@pytest.fixture(scope="session")
def run_steps():
    """Return a function that runs the first steps of a run as the loop does: their metrics, and the state after them.

    No step transfers anything between host and devices.
    """
    import jax

    from bloodcell_jax.run.compilation import compile_stage
    from bloodcell_jax.run.inputs import RunInputs

    def run_steps(run, count):
        stage, state, seed, metrics = run.stages[0], run.initial_state(), run.place_seed(), []
        stage_input = RunInputs(run).of_stage(stage)
        data, step = stage_input.place_data(state.params), compile_stage(run, stage, stage_input)
        with stage_input.open_batches(0) as batches:
            for _ in range(count):
                batch = next(batches)
                with jax.transfer_guard("disallow"):
                    state, values = step(state, data, batch, seed)
                metrics.append(jax.device_get(jax.block_until_ready(values)))
        return metrics, jax.device_get(state)

    return run_steps


@pytest.fixture(scope="session")
def assert_same_run():
    """Return a function that compares two finished runs to the bit: log, predictions, model and last state."""
    import jax

    from bloodcell_jax.run.create import create_run
    from bloodcell_jax.weights.calibration import calibration_values
    from bloodcell_jax.weights.model_file import read_model_file
    from bloodcell_jax.workdir import Workdir
    from bloodcell_jax.workdir.checkpoints import Checkpoints

    def lines_of(workdir):
        lines = Workdir(workdir).read_metrics()
        return [{key: value for key, value in line.items() if not key.startswith("perf/")} for line in lines]

    def final_state(workdir):
        run = create_run(Workdir(workdir).read_config())
        with contextlib.closing(Checkpoints(workdir / "checkpoints", read_only=True)) as checkpoints:
            like, last = run.tree_shapes(run.stages[-1]), checkpoints.folders.steps()[-1]
            return last, checkpoints.restore(last, like)

    def assert_same_run(workdir, other):
        assert lines_of(workdir) == lines_of(other)
        for split in ("val", "test"):
            name = f"eval/{split}/predictions.csv"
            assert (workdir / name).read_bytes() == (other / name).read_bytes()
        (ours, record), (theirs, other_record) = (read_model_file(w / "model.safetensors") for w in (workdir, other))
        assert (record.step, record.metrics) == (other_record.step, other_record.metrics)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
        values = calibration_values(record.calibration), calibration_values(other_record.calibration)
        jax.tree.map(np.testing.assert_array_equal, *values)
        (step, state), (other_step, other_state) = final_state(workdir), final_state(other)
        assert step == other_step
        jax.tree.map(np.testing.assert_array_equal, state, other_state)

    return assert_same_run


@pytest.fixture(scope="session")
def trained(start, shared):
    """Return the workdir of a finished run that nothing interrupted; tests change copies of it only."""

    def train(workdir):
        process = start(workdir)
        _, errors = process.communicate()
        assert process.returncode == 0, errors

    return shared("run", train)


@pytest.fixture(scope="module")
def chromium():
    """Return a running Chromium: that of the system, or else Playwright's own."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: make test-browser installs it")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with api.sync_playwright() as playwright:
        if found is None and not os.path.exists(playwright.chromium.executable_path):
            pytest.skip("needs Chromium: install it, or run python -m playwright install chromium")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()
