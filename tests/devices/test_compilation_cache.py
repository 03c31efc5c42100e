"""Truncated entries of JAX's persistent cache are deleted; whole ones stay and serve."""

import os
import subprocess
import sys

from bloodcell_jax.devices.compilation_cache import delete_truncated_entries

PROGRAM = """
import warnings
warnings.simplefilter("error")
from bloodcell_jax.devices.settings import configure_jax
configure_jax()
import jax, jax.numpy as jnp
print(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.eye(8)).sum())
"""


def run(folder):
    settings = {"JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_kill_while_an_entry_is_written_costs_one_compilation(tmp_path):
    output = run(tmp_path)
    entries = sorted(tmp_path.glob("*-cache"))
    whole = [entry.read_bytes() for entry in entries]
    assert entries
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:100])
    # JAX alone would warn, which the program makes an error, and leave the entry as it is.
    assert run(tmp_path) == output
    assert [entry.read_bytes()[:4] for entry in entries] == [content[:4] for content in whole]
    delete_truncated_entries(tmp_path)
    assert sorted(tmp_path.glob("*-cache")) == entries, "whole entries stay"


def test_no_folder_is_no_error(tmp_path):
    delete_truncated_entries(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
