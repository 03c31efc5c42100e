"""The public API is what it says, and importing it costs nothing and touches no device."""

import subprocess
import sys

import pytest

import bloodcell_jax as bc


def run(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_imports_no_jax():
    assert run("import sys, bloodcell_jax.cli; print('jax' in sys.modules)") == "False\n"


def test_using_the_api_s_names_touches_no_device():
    program = """
import runpy
import bloodcell_jax as bc
for name in dir(bc):
    getattr(bc, name)
for config in ("quickstart", "pbc_scratch", "convnext_base"):
    runpy.run_path(f"configs/{config}.py")["get_config"]()
from jax._src import xla_bridge
print(xla_bridge._backends)
"""
    assert run(program) == "{}\n"


def test_names():
    expected = {"Classifier", "Config", "WeightsInfo", "audit", "augment", "create_model", "decay_mask", "load_source"}
    expected |= {"load_weights", "read_weights_info", "save_weights", "train_and_evaluate", "trainable_mask"}
    assert set(dir(bc)) == expected
    assert bc.augment.d4.__name__ == "d4"
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = bc.absent
