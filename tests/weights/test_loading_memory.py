"""Loading takes little more memory than the parameters: files are mapped, and each tensor is copied once."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from safetensors.numpy import save_file

from bloodcell_jax.models import create_model
from bloodcell_jax.weights import save_weights
from bloodcell_jax.weights.info import variant_info

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="counts anonymous memory as Linux does"),
]

# This program prints the anonymous memory that the loaded parameters take, over their size.
PROGRAM = """
import re, sys, jax, bloodcell_jax as bc
from pathlib import Path
from bloodcell_jax.weights import load_weights

def anonymous():
    return int(re.search(r"Anonymous: +(\\d+)", Path("/proc/self/smaps_rollup").read_text())[1]) * 1024

model = bc.create_model("convnext_base", 1000)
before = anonymous()
params = load_weights(sys.argv[1], model)
print((anonymous() - before) / sum(leaf.nbytes for leaf in jax.tree.leaves(params)))
"""


def write_ours(path, params, *_):
    save_weights(path, unflatten_dict(params, sep="/"), variant_info("convnext_base", 1000))


def write_timm(path, params, written_as, _):
    save_file(written_as("timm", params), path)


def write_torch(path, params, written_as, torch):
    torch.save({name: torch.from_numpy(array) for name, array in written_as("facebook", params).items()}, path)


def write_h5(path, params, written_as, _):
    with h5py.File(path, "w") as file:
        for name, array in written_as("hugging face tensorflow", params).items():
            file[name] = np.ascontiguousarray(array)


@pytest.mark.parametrize("write", [write_ours, write_timm, write_torch, write_h5])
def test_base_takes_at_most_1_2_times_its_size(write, random_params, written_as, torch, tmp_path):
    write(tmp_path / "weights", random_params(create_model("convnext_base", 1000)), written_as, torch)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "weights")], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) < 1.2
