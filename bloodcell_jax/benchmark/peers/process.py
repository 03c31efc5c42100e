"""Our side of a peer's process: it asks for one window at a time over a pipe."""

import json
import os
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import Any

from bloodcell_jax.benchmark.peers.task import CannotError, Task
from bloodcell_jax.benchmark.peers.worker import task_to_line

# OpenMP's threads spin for up to 200 ms after their last work and would disturb the next program. This pause does not
# slow the peer down, but OMP_WAIT_POLICY=PASSIVE would.
_SETTLE_SECONDS = 0.25

_ENVIRONMENT = {
    "KERAS_BACKEND": "jax",
    # Our arrays and those of the peer share one device.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    # A peer has to compile its programs, and runs must not find them in their cache.
    "JAX_ENABLE_COMPILATION_CACHE": "false",
}


class PeerProcess:
    """A peer that runs. It is a context manager: on exit, the process of the peer ends.

    Attributes:
      description: parameters, versions and notes of the peer.
      first_call_s: program -> seconds of its first step, compilation included.
    """

    def __init__(self, name: str, task: Task, environment: dict[str, str]):
        """Start the process and wait until each of its programs has run once.

        Args:
          name: of the peer.
          task: what it runs.
          environment: variables that the process has besides those of this one.

        Raises:
          CannotError: the peer cannot run the task.
        """
        # `close` closes it.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        threads = str(task.threads)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bloodcell_jax.benchmark.peers.worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | _ENVIRONMENT | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads} | environment,
            text=True,
        )
        self.first_call_s: dict[str, float] = {}
        try:
            self.description = self._ask(task_to_line(task))
            for program in ("train", "inference"):
                self.first_call_s[program] = self.run(program, 1)
        except BaseException:
            self.close()
            raise

    def run(self, program: str, steps: int) -> float:
        """Run a window of `train` or `inference`, and return its seconds.

        Raises:
          CannotError: the process has ended.
        """
        seconds = self._ask(json.dumps({"program": program, "steps": steps}))["seconds"]
        time.sleep(_SETTLE_SECONDS)
        return seconds

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdout is not None, "it is a pipe"
        try:
            print(line, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise CannotError(self._why_ended())
        answer = json.loads(answer)
        if "cannot" in answer:
            raise CannotError(answer["cannot"])
        return answer

    def _why_ended(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        text = " ".join(lines)
        if code == -9 or "out of memory" in text.lower() or "RESOURCE_EXHAUSTED" in text or "allocate memory" in text:
            return "out of memory; try a smaller --config.train.batch_size"
        return f"its process ended with exit code {code}{f' ({lines[-1][:300]})' if lines else ''}"

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> "PeerProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
