"""The verb `benchmark`: what it writes, what it does if the memory is full, and what it refuses."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from bloodcell_jax import cli
from bloodcell_jax.benchmark import PARTS
from bloodcell_jax.benchmark.command import _task
from bloodcell_jax.benchmark.peers import PEERS, check_peers
from bloodcell_jax.benchmark.peers.task import CannotError, Task
from bloodcell_jax.benchmark.peers.worker import build_programs
from bloodcell_jax.benchmark.programs import random_run
from bloodcell_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, StageConfig
from bloodcell_jax.errors import UsageError
from bloodcell_jax.models import create_model
from bloodcell_jax.models.registry import count_parameters
from bloodcell_jax.models.variants import VARIANTS

TINY = ["--config=quickstart", "--config.model.variant=test_convnext3", "--config.data.image_size=32"]
KEYS = {"environment", "model", "image_size", "batch_size", "precision", "train", "inference", "augment", "start"}
KEYS |= {"peers", "ratios"}
PROGRAM_KEYS = {"images_per_second", "step_ms", "mfu", "peak_bytes"}
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


@pytest.fixture
def run(one_device):
    """Return a function that runs the verb in a process of its own: the finished process with its output."""

    def run(*flags):
        command = [sys.executable, "launch.py", "benchmark", *flags]
        return subprocess.run(command, env=os.environ | one_device, capture_output=True, text=True)

    return run


def check_contract(results, peers):
    """Check that all promised fields of the results are there and agree with each other."""
    assert results.keys() >= KEYS
    for name in ("train", "inference", "augment"):
        assert results[name].keys() >= PROGRAM_KEYS
    assert results.keys() >= set(PARTS)
    size = results["batch_size"]
    for name in ("train", "inference"):
        cost = results[name]
        assert cost["images_per_second"] == pytest.approx(1e3 * size / cost["step_ms"])
        assert cost["mfu"] == pytest.approx(cost["model_flops"] / results["matrix_rate"] / (cost["step_ms"] / 1e3))
        # The compiler counts norms and the rest as well.
        assert 0.8 < cost["compiled_flops"] / cost["model_flops"] < 2
        assert len(cost["windows_ms"]) == 5
        assert cost["compile_s"] > 0.1
    assert results["train"]["model_flops"] == 3 * results["inference"]["model_flops"]
    assert results["peers"].keys() == results["ratios"].keys() == set(peers)
    for name, peer in results["peers"].items():
        assert peer["parameters"] == results["parameters"]
        for kind in ("train", "inference"):
            ours, theirs = results[kind]["images_per_second"], peer[kind]["images_per_second"]
            assert results["ratios"][name][kind] == pytest.approx(ours / theirs)
            plain = peer["as_started"][kind]
            assert plain["ours_per_peer"] == pytest.approx(ours / plain["images_per_second"])


@needs_torch
@pytest.mark.exhaustive
def test_results_with_peers(run, tmp_path):
    output = tmp_path / "results.json"
    done = run(
        *TINY,
        "--config.train.batch_size=16",
        "--config.augment.policy=d4",
        "--parts=augment,input,checkpoint",
        "--peers=torch",
        f"--output={output}",
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text())
    check_contract(results, ["torch"])
    assert (results["model"], results["image_size"], results["batch_size"]) == ("test_convnext3", 32, 16)
    assert results["precision"] == "float32"
    assert results["start"] is results["blocks"] is results["roofline"] is None
    assert results["checkpoint"]["bytes"] > 3 * 4 * results["parameters"]
    assert 0 < results["checkpoint"]["pause_s"] <= results["checkpoint"]["written_s"]
    for word in ("train", "GFLOP", "MFU", "torch", "ours/peer", "checkpoint"):
        assert word in done.stdout


@pytest.mark.parity
def test_every_part_and_every_peer(run, tmp_path):
    output = tmp_path / "results.json"
    peers = [name for name in PEERS if all(importlib.util.find_spec(package) for package in PEERS[name].packages)]
    done = run(
        "--config=quickstart",
        "--config.model.variant=convnext_tiny",
        "--config.data.image_size=32",
        "--config.train.batch_size=4",
        f"--peers={','.join(peers)}",
        f"--output={output}",
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text())
    check_contract(results, peers)
    assert results["peers_left_out"] == {}
    assert 0 < results["start"]["first_step_s"] < results["start"]["cold_first_step_s"]
    assert [(row["shape"], row["count"]) for row in results["blocks"]] == [
        ([4, 8, 8, 96], 3),
        ([4, 4, 4, 192], 3),
        ([4, 2, 2, 384], 9),
        ([4, 1, 1, 768], 3),
    ]
    parts = {"matrix products", "depthwise", "norms", "activation and residual", "augmentation", "optimizer"}
    assert results["roofline"].keys() == parts
    assert all(part["ms"] > 0 and part["limit_ms"] > 0 for part in results["roofline"].values())


FULL_MEMORY = """
import logging, resource, runpy
import jax
from bloodcell_jax.benchmark.command import compile_programs

logging.basicConfig(level="INFO", force=True)
config = runpy.run_path("configs/quickstart.py")["get_config"]()
config.model.variant, config.model.layer_scale, config.data.image_size = "custom_cnn", None, 40
config.augment.policy, config.train.batch_size = "none", 1024
config.stages[0].trainable = ("head/.*", "!.*")
jax.devices()
now = 1024 * int(open("/proc/self/status").read().split("VmSize:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_AS, (now + 3 * 2**29,) * 2)
run, step, inference = compile_programs(config)
print(run.config.train.batch_size)
"""


def test_a_full_memory_halves_the_batch(one_device):
    """Step and inference really need more than the 1.5 GiB that the address space of the process has left."""
    # There is one heap, because heaps of threads reserve addresses, and a busy machine has more of them.
    environment = os.environ | one_device | {"MALLOC_ARENA_MAX": "1"}
    done = subprocess.run([sys.executable, "-c", FULL_MEMORY], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    fits = int(done.stdout.splitlines()[-1])
    assert fits in (512, 256)
    assert re.search(rf"memory.* {2 * fits}\b.* {fits}\b", done.stderr)


def test_labels_are_of_the_classes_that_the_configuration_names():
    config = Config(
        data=DataConfig(class_names=("red", "green", "blue"), image_size=32),
        model=ModelConfig(variant="test_convnext3"),
        stages=[StageConfig(steps=1)],
    )
    run = random_run(config)
    assert run.dataset.labels.max() == 2
    assert run.config.model.num_classes == len(run.dataset.class_names) == 3


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--peers=tourch"], rf"--peers=tourch: .*{', '.join(PEERS)}"),
        (["--parts=all"], rf"--parts=all: .*{', '.join(PARTS)}"),
        (["--windows=2"], r"windows.*\b5\b"),
        (["--output=."], r"--output=\.: "),
        (["--peers=flax_stock"], r"--peers: .*\b8\b.*CUDA_VISIBLE_DEVICES"),
    ],
)
def test_what_it_refuses(flags, expected, capsys):
    assert cli.main(["bloodcell", "benchmark", "--config=quickstart", *flags]) == 2
    assert re.search(expected, capsys.readouterr().err)


def test_a_peer_that_is_not_installed():
    absent = [name for name, peer in PEERS.items() if any(not importlib.util.find_spec(p) for p in peer.packages)]
    if not absent:
        pytest.skip("every peer is installed")
    with pytest.raises(UsageError, match=f"--peers={absent[0]}: .*pip install"):
        check_peers(["flax_stock", absent[0]])


@needs_torch
def test_torch_compile_without_a_compiler(tmp_path, monkeypatch):
    if os.path.exists("/proc/driver/nvidia"):
        pytest.skip("on a GPU it needs none")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match=r"--peers=torch_compile: .*C\+\+ compiler"):
        check_peers(["torch_compile"])


def task_of(variant, **changes):
    import jax

    model = create_model(variant, 8)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jax.numpy.zeros((1, 32, 32, 3)))["params"])
    task = Task(
        name=variant,
        variant=VARIANTS[variant],
        num_classes=8,
        image_size=32,
        batch_size=2,
        stem_stride=4,
        drop_path=0.1,
        label_smoothing=0.1,
        dtype="bfloat16",
        optimizer=OptimizerConfig(name="lion", weight_decay=0.1, clip_norm=1.0),
        parameters=count_parameters(shapes),
        threads=1,
    )
    return replace(task, **changes)


@needs_torch
@pytest.mark.parametrize("variant", [pytest.param("convnextv2_atto", marks=pytest.mark.exhaustive), "test_convnext3"])
def test_pytorchs_network_is_ours(variant):
    """The network has as many parameters as ours, and its step runs in bfloat16 with Lion."""
    programs = build_programs("torch", task_of(variant))
    programs.train(2)
    programs.inference(1)


@needs_torch
def test_another_network_is_refused():
    with pytest.raises(CannotError, match=r"test_convnext2\b.* 349,832 .* 7\b"):
        build_programs("torch", task_of("test_convnext2", parameters=7))


@needs_torch
@pytest.mark.parametrize("peer", ["torch", "torch_compile"])
def test_an_optimizer_that_pytorch_lacks_is_refused(peer):
    from bloodcell_jax.benchmark.peers.torch_training import OPTIMIZERS

    with pytest.raises(CannotError, match=f"optimizer sign_sgd\\b.*{', '.join(OPTIMIZERS)}"):
        build_programs(peer, task_of("test_convnext2", optimizer=OptimizerConfig(name="sign_sgd")))


def test_an_optimizer_that_the_plain_network_lacks_is_refused():
    with pytest.raises(CannotError, match=r"optimizer muon\b.*adamw, adam, lion, sgd"):
        build_programs("flax_stock", task_of("test_convnext2", optimizer=OptimizerConfig(name="muon")))


def test_a_decay_by_layers_is_measured_and_leaves_the_peers_out():
    config = Config(model=ModelConfig(variant="test_convnext2", dtype="float32"))
    config.data.image_size, config.train.batch_size = 32, 8
    config.stages[-1].optimizer.layer_decay = 0.7
    run = random_run(config)
    assert run.stages[0].config.optimizer.layer_decay == 0.7
    assert run.stages[0].distances
    with pytest.raises(CannotError, match=r"layer_decay=0\.7"):
        _task(run)


def test_an_optimizer_that_keras_lacks_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip("keras")
    from bloodcell_jax.benchmark.peers.keras_jax import OPTIMIZERS

    with pytest.raises(CannotError, match=f"optimizer sign_sgd\\b.*{', '.join(OPTIMIZERS)}"):
        build_programs("keras_jax", task_of("convnext_tiny", optimizer=OptimizerConfig(name="sign_sgd")))
