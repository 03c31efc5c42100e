"""A run goes on with another number of devices: the same examples and draws, and sums in another order."""

import json
import shutil
import signal
import time

import numpy as np
import pytest

from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.checkpoint_folders import CheckpointFolders

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

# Lion updates by signs, which turn where a gradient is all but zero.
RTOL = {"adamw": 1e-4, "lion": 1e-3}


@pytest.fixture(scope="module", params=[(8, "adamw"), (1, "adamw"), (8, "lion")], ids=str)
def stopped(request, start, tmp_path_factory):
    """Return a run on so many devices that a signal stopped after step 8 or later, and its optimizer."""
    devices, optimizer = request.param
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    process = start(workdir, f"--config.stages[1].optimizer.name={optimizer}", devices=devices)
    while not CheckpointFolders(workdir / "checkpoints").steps()[-1:] >= [8]:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 75, errors
    return workdir, optimizer


def go_on(start, stopped, workdir, *flags, devices):
    """Finish a copy of a stopped run; return the lines of the twenty steps after the stop."""
    before, optimizer = stopped
    shutil.copytree(before, workdir)
    stopped_at = CheckpointFolders(workdir / "checkpoints").steps()[-1]
    assert stopped_at < 16
    process = start(workdir, f"--config.stages[1].optimizer.name={optimizer}", *flags, devices=devices)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return [line for line in Workdir(workdir).read_metrics() if stopped_at < line["step"] <= stopped_at + 20]


@pytest.fixture(scope="module")
def unchanged(stopped, start, tmp_path_factory):
    """Return the lines of the run that goes on with as many devices as before."""
    devices = len(json.loads((stopped[0] / "environment.json").read_text())["devices"])
    return go_on(start, stopped, tmp_path_factory.mktemp("unchanged") / "run", devices=devices)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("backend", ["pmap", "jit"])
def test_the_losses_agree(stopped, unchanged, start, tmp_path, devices, backend):
    lines = go_on(start, stopped, tmp_path / "run", f"--config.train.backend={backend}", devices=devices)
    assert len(lines) == 10
    for name in ("step", "lr", "epoch"):
        assert [line[name] for line in lines] == [line[name] for line in unchanged]
    ours, theirs = (np.array([line["train/loss"] for line in run]) for run in (lines, unchanged))
    print(f"{stopped[1]}, {backend} on {devices}: the losses differ by {np.abs(ours / theirs - 1).max():.1e}")
    np.testing.assert_allclose(ours, theirs, rtol=RTOL[stopped[1]])
