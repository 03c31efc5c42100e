"""A run goes on with another number of devices: the same examples and draws, and sums in another order."""

import shutil
import signal
import time

import numpy as np
import pytest

from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.checkpoint_folders import CheckpointFolders

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module", params=[8, 1])
def stopped(request, start, tmp_path_factory):
    """Return a run on so many devices that a signal stopped after step 8 or later."""
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    process = start(workdir, devices=request.param)
    while not CheckpointFolders(workdir / "checkpoints").steps()[-1:] >= [8]:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 75, errors
    return workdir


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("backend", ["pmap", "jit"])
def test_the_losses_agree(stopped, trained, start, tmp_path, devices, backend):
    workdir = shutil.copytree(stopped, tmp_path / "run")
    stopped_at = CheckpointFolders(workdir / "checkpoints").steps()[-1]
    assert stopped_at < 16
    process = start(workdir, f"--config.train.backend={backend}", devices=devices)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    lines, expected = Workdir(workdir).read_metrics(), Workdir(trained).read_metrics()
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    for ours, theirs in zip(lines, expected, strict=True):
        if stopped_at < ours["step"] <= stopped_at + 20:
            np.testing.assert_allclose(ours["train/loss"], theirs["train/loss"], rtol=1e-4)
            assert ours["lr"] == theirs["lr"]
            assert ours["epoch"] == theirs["epoch"]
