"""The verb `plan`: real compilers for machines that are not here, and what is refused."""

import json
import os
import subprocess
import sys

import jax
import pytest

from bloodcell_jax import cli
from bloodcell_jax.config import Config, TrainConfig
from bloodcell_jax.errors import UsageError
from bloodcell_jax.plan.advice import runs_that_need_less
from bloodcell_jax.plan.command import is_installed, run_plan
from bloodcell_jax.plan.compiled_step import needed_bytes
from bloodcell_jax.plan.shapes_run import create_shapes_run
from bloodcell_jax.plan.topology import parse_topology

TINY = ["--config=quickstart", "--config.model.variant=test_convnext3", "--config.data.image_size=32"]
needs_tpu = pytest.mark.skipif(not is_installed("libtpu"), reason="the extra plan-tpu is not installed")
needs_gpu = pytest.mark.skipif(not is_installed("jax_plugins.xla_cuda13"), reason="the extra plan-gpu is not installed")
V5E, H100 = pytest.param("tpu:v5e:4x4", marks=needs_tpu), pytest.param("gpu:h100:8", marks=needs_gpu)


def plan(folder, *flags):
    """Run the verb as a user does, and return what it printed and wrote."""
    output = folder / "plan.json"
    process = subprocess.run(
        [sys.executable, "launch.py", "plan", f"--output={output}", *flags],
        # The tests have steps for this machine compiled in haste; programs of others are compiled as users have them.
        env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout, json.loads(output.read_text())


def copies_of_images(stage):
    return [row["name"] for row in stage["costliest"] if "images" in row["name"]]


@pytest.mark.parametrize("topology", [V5E, H100])
def test_a_small_step_is_compiled_for_a_machine_that_is_not_here(topology, tmp_path):
    text, results = plan(tmp_path, *TINY, f"--topology={topology}", "--nolargest_batch", "--examples=1000")
    [made] = results["topologies"]
    devices = 16 if "tpu" in topology else 8
    assert (made["topology"], made["devices"], made["batch_per_device"]) == (topology, devices, 32 // devices)
    [stage] = made["stages"]
    memory, estimate = stage["memory"], stage["estimate"]
    assert memory["fits"]
    # The images and the state are arguments.
    assert 1000 * 32 * 32 * 3 < memory["arguments"] < memory["peak"] < memory["usable"]
    assert [(row["kind"], row["count"]) for row in stage["collectives"]] == [("all-reduce", 1)]
    assert not copies_of_images(stage)
    assert 0 < estimate["flops_s"] <= estimate["one_by_one_s"]
    slowest, fastest = estimate["images_per_second"]
    assert 0 < slowest < fastest
    assert 0 < sum(row["share"] for row in stage["costliest"]) <= 1
    assert topology in text
    assert f"{stage['operations']:,}" in text


@pytest.mark.plan
@pytest.mark.timeout(0)
@pytest.mark.parametrize("topology", [V5E, H100])
def test_the_step_of_atto_keeps_to_its_counts(topology, tmp_path):
    """One all-reduce, no copy of the images, and bounds a tenth above what was compiled (docs/plan.md)."""
    flags = ["--config=convnext_base", "--config.model.variant=convnext_atto", "--config.train.batch_size=1024"]
    _, results = plan(tmp_path, *flags, f"--topology={topology}", "--nolargest_batch")
    for stage in results["topologies"][0]["stages"]:
        most_operations, most_temporaries = BOUNDS[topology, stage["stage"]]
        assert [(row["kind"], row["count"]) for row in stage["collectives"]] == [("all-reduce", 1)]
        assert not copies_of_images(stage)
        assert stage["operations"] <= most_operations
        assert stage["memory"]["temporaries"] <= most_temporaries * 2**20


BOUNDS = {
    ("gpu:h100:8", "head"): (220, 50),
    ("gpu:h100:8", "fine-tune"): (540, 510),
    ("tpu:v5e:4x4", "head"): (1900, 10),
    ("tpu:v5e:4x4", "fine-tune"): (3700, 330),
}


@pytest.mark.plan
@pytest.mark.timeout(0)
@pytest.mark.parametrize("topology", [pytest.param("gpu:l4:1", marks=needs_gpu)])
def test_the_largest_batch_fits_and_five_percent_more_does_not(topology, tmp_path):
    flags = ["--config=quickstart", "--config.model.variant=convnext_tiny", f"--topology={topology}"]
    _, results = plan(tmp_path, *flags, "--config.train.batch_size=512")
    size = results["topologies"][0]["stages"][0]["largest_batch"]
    for batch, fits in ((size, True), (int(1.06 * size), False)):
        _, results = plan(tmp_path, *flags, f"--config.train.batch_size={batch}", "--nolargest_batch")
        assert results["topologies"][0]["stages"][0]["memory"]["fits"] == fits


@pytest.mark.plan
@pytest.mark.timeout(0)
@pytest.mark.parametrize("topology", [pytest.param("gpu:l4:2", marks=needs_gpu)])
def test_what_makes_a_step_fit_is_found_by_compiling_it(topology, tmp_path):
    flags = ["--config=quickstart", "--config.model.variant=convnext_tiny", f"--topology={topology}"]
    flags.append("--config.train.batch_size=8192")
    text, results = plan(tmp_path, *flags)
    [stage] = results["topologies"][0]["stages"]
    assert not stage["memory"]["fits"]
    assert stage["fits_with"]["changes"] == {"model.remat": True}
    assert "model.remat=True" in text
    _, results = plan(tmp_path, *flags, "--config.model.remat", "--nolargest_batch")
    [stage] = results["topologies"][0]["stages"]
    assert stage["memory"]["fits"]


def test_changes_that_save_memory_are_tried_in_turn_unless_they_are_made_already():
    def changes(devices, **train):
        config = Config(train=TrainConfig(backend="jit", batch_size=8, **train))
        run = create_shapes_run(config, 24, jax.devices()[:devices], 10**9)
        made = list(runs_that_need_less(run, config, lambda config: config))
        for fields, changed in made:
            assert changed.model.remat == fields.get("model.remat", False)
            assert changed.train.shard_state == fields.get("train.shard_state", config.train.shard_state)
        return [tuple(fields.values()) for fields, _ in made]

    assert changes(1) == [(True,)], "there is nothing to cut the state over"
    assert changes(2) == [(True,), ("optimizer",), (True, "optimizer"), (True, "all")]
    assert changes(2, shard_state="optimizer") == [(True,), (True, "optimizer"), (True, "all")]


@pytest.mark.parametrize(
    ("said", "gibibytes"),
    [
        # What libtpu 0.0.42.1 says of a v5e.
        ("Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.", 20.5),
        (
            "Ran out of memory on HBM, the total memory required for HLO temporaries (21.00G) exceeds available HBM "
            "(15.75G).",
            21.0,
        ),
        ("Something else is exhausted", None),
    ],
)
def test_a_compiler_that_refuses_says_what_it_needs(said, gibibytes):
    assert needed_bytes(f"RESOURCE_EXHAUSTED: {said}") == (None if gibibytes is None else gibibytes * 2**30)


REFUSED = {
    "none": ([], "--topology"),
    "unknown": (["--topology=gpu:titan:8"], "gpu:titan:8"),
    "folder as output": (["--topology=gpu:h100:8", "--output=/"], "--output=/"),
    "nothing to compare": (["--topology=gpu:h100:8", "--compare=/nowhere.json"], "/nowhere.json"),
    "too few examples": (["--topology=gpu:h100:8", "--examples=1"], "examples"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_planned_is_refused_in_one_line(case, capsys, monkeypatch):
    for name in ("JAX_PLATFORMS", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "TPU_SKIP_MDS_QUERY"):
        monkeypatch.setenv(name, "cpu")  # so that what the verb sets is undone
    flags, named = REFUSED[case]
    assert cli.main(["bloodcell", "plan", *TINY, *flags]) == (3 if case == "nothing to compare" else 2)
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("topology", "extra", "module"),
    [("tpu:v5e:4x4", "plan-tpu", "libtpu"), ("gpu:h100:8", "plan-gpu", "jax_plugins.xla_cuda13")],
)
def test_a_compiler_that_is_missing_is_named(topology, extra, module, capsys, monkeypatch):
    if is_installed(module):
        pytest.skip(f"{module} is installed")
    for name in ("JAX_PLATFORMS", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "TPU_SKIP_MDS_QUERY"):
        monkeypatch.setenv(name, "cpu")
    assert cli.main(["bloodcell", "plan", *TINY, f"--topology={topology}"]) == 2
    said = capsys.readouterr().err
    assert f"[{extra}]" in said
    assert module in said


def test_devices_that_do_not_divide_the_batch_are_refused_before_any_compilation():
    config = Config(train=TrainConfig(batch_size=24))
    topologies = [parse_topology(name) for name in ("gpu:h100:8", "tpu:v5e:4x4")]
    with pytest.raises(UsageError, match=r"batch_size=24: 16 devices.*16 or 32"):
        run_plan(config, topologies, examples=100, find_largest=False)
