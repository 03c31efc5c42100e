"""Time from launch to first step: `train` in a fresh process, with an empty compilation cache and then a full one."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bloodcell_jax.benchmark.programs import measured_config, random_examples
from bloodcell_jax.config import Config, to_dict

_EXAMPLES = 2048
_LAUNCH = "from bloodcell_jax.cli import console; console()"
_READ_CONFIG = """
import json
from bloodcell_jax.config import from_dict


def get_config(arg=""):
    with open({path!r}, encoding="utf-8") as file:
        return from_dict(json.load(file))
"""


def measure_startup(config: Config) -> dict[str, float | int]:
    """Measure the seconds from launch to the end of the first step, twice.

    Call this function before this process uses a device, because some devices cannot be shared.

    Returns:
      `cold_first_step_s` with an empty compilation cache, `first_step_s` with a full one, and the number of `examples`.

    Raises:
      RuntimeError: the run ended before its first step; the message is its last line.
    """
    with tempfile.TemporaryDirectory(prefix="bloodcell-benchmark-") as folder:
        command = _command(config, Path(folder))
        environment = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache", "JAX_ENABLE_COMPILATION_CACHE": "true"}
        cold, warm = (_first_step_seconds(command, environment) for _ in range(2))
    return {"first_step_s": warm, "cold_first_step_s": cold, "examples": _EXAMPLES}


def _command(config: Config, folder: Path) -> list[str]:
    config = measured_config(config)
    images, labels = random_examples(config, _EXAMPLES)
    # Reading is part of a launch. The arrays are not compressed, because the arrays of users usually are not.
    np.savez(folder / "pixels.npz", images=images, labels=labels)
    config.data.source = f"npz:{folder / 'pixels.npz'}"
    config.stages[0].steps, config.train.log_every = 2, 1
    (folder / "config.json").write_text(json.dumps(to_dict(config)), encoding="utf-8")
    (folder / "config.py").write_text(_READ_CONFIG.format(path=str(folder / "config.json")), encoding="utf-8")
    flags = [f"--config={folder / 'config.py'}", f"--workdir={folder / 'run'}", "--overwrite", "--distributed=off"]
    return [sys.executable, "-c", _LAUNCH, "train", *flags]


def _first_step_seconds(command: list[str], environment: dict[str, str]) -> float:
    start, last = time.perf_counter(), ""
    with subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None, "it is a pipe"
        try:
            for line in process.stderr:
                if line.startswith("step 1/"):
                    return time.perf_counter() - start
                last = line.strip() or last
        finally:
            process.kill()
    raise RuntimeError(last)
