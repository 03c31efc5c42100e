"""A measurement of `benchmark` is set beside the plan for the same work on the same device, and no other."""

import json

import pytest

from bloodcell_jax import cli
from bloodcell_jax.benchmark.programs import measured_config
from bloodcell_jax.config import Config, DataConfig, ModelConfig, StageConfig, TrainConfig
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.plan.compare import check_comparable, match, read_measured
from bloodcell_jax.plan.topology import parse_topology

# As `benchmark` writes it: the name of a device ends with its number.
MEASURED = {
    "environment": {"devices": ["NVIDIA H100 80GB HBM3 0"]},
    "model": "convnext_atto",
    "image_size": 48,
    "batch_size": 256,
    "precision": "bfloat16",
    "stage": "fine-tune",
    "train": {"images_per_second": 20_000.0, "step_ms": 12.8, "peak_bytes": 10**9},
}
TOPOLOGIES = [parse_topology(name) for name in ("gpu:h100:8", "gpu:h100:1")]
PLANNED = {
    "topologies": [
        {"topology": "gpu:h100:8", "device": "NVIDIA H100 80GB HBM3", "devices": 8},
        {"topology": "gpu:h100:1", "device": "NVIDIA H100 80GB HBM3", "devices": 1},
    ]
}


def config_of(**last):
    """Return the configuration that was measured: its last stage trains on smaller images than `data.image_size`."""
    stages = [StageConfig(name="head", epochs=1.0, image_size=32)]
    stages.append(StageConfig(**{"name": "fine-tune", "epochs": 1.0, "image_size": 48} | last))
    return Config(
        data=DataConfig(image_size=96),
        model=ModelConfig(variant="convnext_atto", dtype="bfloat16"),
        stages=stages,
        train=TrainConfig(batch_size=256),
    )


def written(folder, results):
    path = folder / "benchmark.json"
    path.write_text(json.dumps(results))
    return path


def test_it_stands_beside_the_topology_that_it_was_measured_on(tmp_path):
    measured = read_measured(written(tmp_path, MEASURED))
    check_comparable(measured, config_of(), TOPOLOGIES)
    found = match(measured, PLANNED)
    assert (found["topology"], found["step_ms"], found["stage"]) == ("gpu:h100:1", 12.8, "fine-tune")


def test_the_stage_that_benchmark_measures_is_the_one_that_plan_compares():
    assert measured_config(config_of()).data.image_size == MEASURED["image_size"]
    assert [stage.name for stage in measured_config(config_of()).stages] == [MEASURED["stage"]]


@pytest.mark.parametrize(
    ("change", "last", "named"),
    [
        ({"batch_size": 64}, {}, ["batch_size", "64", "256"]),
        ({"precision": "float32"}, {}, ["float32", "bfloat16"]),
        ({"stage": "head"}, {}, ["stage", "head", "fine-tune"]),
        ({}, {"image_size": 64}, ["image_size", "48", "64"]),
        ({"image_size": 32}, {"image_size": None}, ["image_size", "32", "96"]),
        ({}, {"cached_views": 4}, ["cached_views=4", "images"]),
        ({"environment": {"devices": ["NVIDIA L4 0"]}}, {}, ["1 x NVIDIA L4,", "gpu:h100:8"]),
        ({"environment": {"devices": ["TPU v5 lite 0", "TPU v5 lite 1"]}}, {}, ["2 x TPU v5 lite,", "gpu:h100:1"]),
    ],
)
def test_other_work_or_another_device_is_refused_with_both_before_anything_is_compiled(change, last, named, tmp_path):
    path = written(tmp_path, MEASURED | change)
    with pytest.raises(UsageError) as error:
        check_comparable(read_measured(path), config_of(**last), TOPOLOGIES)
    assert all(word in str(error.value) for word in named)


def test_a_tpu_that_the_compiler_calls_by_another_name_is_refused_with_both(tmp_path):
    measured = read_measured(written(tmp_path, MEASURED | {"environment": {"devices": ["TPU v4 0"]}}))
    check_comparable(measured, config_of(), [parse_topology("tpu:v5e:1x1")])
    with pytest.raises(UsageError, match=r"1 x TPU v4, .*1 x TPU v5 lite"):
        match(measured, {"topologies": [{"topology": "tpu:v5e:1x1", "device": "TPU v5 lite", "devices": 1}]})


def test_the_verb_refuses_before_it_compiles(tmp_path, capsys, monkeypatch):
    for name in ("JAX_PLATFORMS", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "TPU_SKIP_MDS_QUERY"):
        monkeypatch.setenv(name, "cpu")  # so that what the verb sets is undone
    monkeypatch.setattr("bloodcell_jax.plan.command.run_plan", lambda *_, **__: pytest.fail("it compiles"))
    path = written(tmp_path, MEASURED | {"model": "convnext_base"})
    flags = ["--config=quickstart", "--topology=gpu:h100:1", f"--compare={path}"]
    assert cli.main(["bloodcell", "plan", *flags]) == 2
    assert "convnext_base" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"train": 3}', "[" * 100_000, '{"environment": {"devices": []}}']
)
def test_another_file_is_refused(content, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"other\.json"):
        read_measured(path)
