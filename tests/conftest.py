"""What every test needs before JAX is imported.

Eight virtual devices, so that data parallelism is tested anywhere; and one compilation cache for all tests and the
processes they start.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".pytest_cache" / "compilation")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
