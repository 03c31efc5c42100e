"""Settings of JAX and XLA that must be made before the first device call."""

import os
import warnings
from pathlib import Path

import jax


def prepare_platform(deterministic: bool = False) -> None:
    """Turn on the persistent compilation cache and, if asked for, XLA's deterministic operations.

    The cache lies in the user's cache folder; `JAX_COMPILATION_CACHE_DIR` wins.
    """
    if deterministic:
        # Without fixed autotuning two runs may choose kernels that round differently.
        os.environ["XLA_FLAGS"] = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
        )
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(base / "bloodcell_jax" / "compilation"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    # Buffers of a batch's indices cannot be reused for the step's outputs; that is expected, not a fault.
    warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
