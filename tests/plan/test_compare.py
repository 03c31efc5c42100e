"""A measurement of `benchmark` is set beside the plan for the same work on the same device, and no other."""

import json

import pytest

from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.plan.compare import match, read_measured

MEASURED = {
    "environment": {"devices": ["NVIDIA H100 80GB HBM3"]},
    "model": "convnext_atto",
    "image_size": 96,
    "batch_size": 256,
    "precision": "bfloat16",
    "stage": "train",
    "train": {"images_per_second": 20_000.0, "step_ms": 12.8, "peak_bytes": 10**9},
}
PLANNED = {name: MEASURED[name] for name in ("model", "image_size", "batch_size", "precision")} | {
    "topologies": [
        {"topology": "gpu:h100:8", "device": "NVIDIA H100 80GB HBM3", "devices": 8},
        {"topology": "gpu:h100:1", "device": "NVIDIA H100 80GB HBM3", "devices": 1},
    ]
}


def written(folder, results):
    path = folder / "benchmark.json"
    path.write_text(json.dumps(results))
    return path


def test_it_stands_beside_the_topology_that_it_was_measured_on(tmp_path):
    found = match(read_measured(written(tmp_path, MEASURED)), PLANNED)
    assert (found["topology"], found["step_ms"], found["stage"]) == ("gpu:h100:1", 12.8, "train")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"batch_size": 64}, ["batch_size", "64", "256"]),
        ({"precision": "float32"}, ["float32", "bfloat16"]),
        ({"environment": {"devices": ["NVIDIA L4"]}}, ["1 x NVIDIA L4", "8 x NVIDIA H100"]),
    ],
)
def test_other_work_or_another_device_is_refused_with_both(change, named, tmp_path):
    with pytest.raises(UsageError) as error:
        match(read_measured(written(tmp_path, MEASURED | change)), PLANNED)
    assert all(word in str(error.value) for word in named)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"train": 3}', "[" * 100_000, '{"environment": {"devices": []}}']
)
def test_another_file_is_refused(content, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"other\.json"):
        read_measured(path)
