"""A run is the same to the bit however its images come; and `auto` says what it chose and why."""

import dataclasses

import jax
import numpy as np
import pytest

from bloodcell_jax.config import AugmentConfig, Config, DataConfig, ModelConfig, StageConfig, TrainConfig
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.data.tfds_sets import prepare
from bloodcell_jax.devices import host
from bloodcell_jax.errors import MachineError, UsageError
from bloodcell_jax.run import create, feed
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.feed import choose_streaming


@pytest.fixture(scope="module")
def sets(cells, tmp_path_factory):
    """Return the folder of the prepared set of the images that every run here is trained on."""
    folder = tmp_path_factory.mktemp("sets")
    prepare(load_source(f"npz:{cells}", image_size=32, class_names=("red", "green", "blue")), folder, "cells")
    return folder


def config_of(sets, kind, backend="pmap", **data):
    return Config(
        data=DataConfig(
            source="tfds:blood_cells/cells", data_dir=str(sets), image_size=32, feed=kind, **({"workers": 0} | data)
        ),
        model=ModelConfig(variant="custom_cnn", dtype="float32"),
        augment=AugmentConfig(policy="d4|brightness:delta=0.2"),
        # Its bits follow the images as well as those of all parameters would, and compile in half the time.
        stages=[StageConfig(steps=4, trainable=("head/.*", "!.*"))],
        train=TrainConfig(backend=backend, batch_size=16),
    )


@pytest.mark.parametrize("backend", ["pmap", "jit"])
def test_parameters_over_eight_devices_are_equal_to_the_bit(sets, backend, run_steps):
    assert jax.device_count() == 8
    resident, streamed = (create_run(config_of(sets, kind, backend)) for kind in ("resident", "streaming"))
    assert not resident.streams
    assert streamed.streams
    assert not isinstance(streamed.dataset.images, np.ndarray)
    assert resident.data_hash == streamed.data_hash
    jax.tree.map(np.testing.assert_array_equal, run_steps(resident, 3), run_steps(streamed, 3))


@pytest.mark.parametrize(
    ("free", "limit", "streams", "words"),
    [
        (8e9, None, False, "data.feed=auto: resident, 0.4 MB of images, free: 8.0 GB on the host"),
        (7e5, None, True, "data.feed=auto: streaming, 0.4 MB of images, free: 0.7 MB on the host"),
        (8e9, 10_000_000, False, "resident, 0.4 MB of images, free: 8.0 GB on the host, 10.0 MB on a device"),
        (8e9, 600_000, True, "streaming, 0.4 MB of images, free: 8.0 GB on the host, 0.6 MB on a device"),
        (5e5, 10_000_000, True, "streaming"),
    ],
)
def test_auto_follows_the_memory_and_says_so(sets, monkeypatch, caplog, free, limit, streams, words):
    device = type("Device", (), {"memory_stats": lambda self: limit and {"bytes_limit": limit, "bytes_in_use": 0}})
    monkeypatch.setattr(jax, "local_devices", lambda: [device()])
    monkeypatch.setattr(feed, "free_host_memory", lambda: int(free))
    data = load_source("tfds:blood_cells/cells", image_size=32, data_dir=str(sets), in_memory=False)
    with caplog.at_level("INFO", "bloodcell_jax"):
        assert choose_streaming(DataConfig(), data, parameters=0) is streams
    assert words in caplog.messages[-1]
    assert choose_streaming(dataclasses.replace(DataConfig(), feed="resident"), data, parameters=0) is False


def test_what_does_not_fit_into_the_host_is_said_before_it_is_read(sets, monkeypatch):
    monkeypatch.setattr(host, "free_host_memory", lambda: 300_000)
    with pytest.raises(MachineError, match=r"^tfds:blood_cells/cells: 0\.0 GB of images do not fit .*data\.feed=str"):
        create_run(config_of(sets, "resident"))
    (sets / "folder" / "a").mkdir(parents=True)
    for i in range(300):
        (sets / "folder" / "a" / f"{i}.png").touch()
    with pytest.raises(MachineError, match="do not fit"):
        load_source(f"folder:{sets / 'folder'}", image_size=32)


def test_duplicates_that_cannot_be_compared_are_said(sets, monkeypatch):
    monkeypatch.setattr(create, "free_host_memory", lambda: 0)
    monkeypatch.setattr(create, "known_duplicate_groups", lambda *_: None)
    with pytest.raises(UsageError, match=r"config\.data\.group_duplicates: tfds:blood_cells/cells leaves splits"):
        create_run(config_of(sets, "streaming"))
    assert create_run(config_of(sets, "streaming", group_duplicates=False)).streams
