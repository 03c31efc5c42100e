"""Settings of JAX and XLA that must be made before the first device call."""

import os
import warnings

from bloodcell_jax.devices.compilation_cache import enable_compilation_cache


def configure_jax(deterministic: bool = False) -> None:
    """Turn on the persistent compilation cache and, if asked for, XLA's deterministic operations."""
    if deterministic:
        # Without fixed autotuning two runs may choose kernels that round differently.
        os.environ["XLA_FLAGS"] = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
        )
    enable_compilation_cache()
    # Buffers of a batch's indices cannot be reused for the step's outputs; that is expected, not a fault.
    warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
