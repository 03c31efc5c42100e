"""Our end of a peer's process: one window at a time over a pipe."""

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

# OpenMP's threads spin for up to 200 ms after their last work and would disturb whoever runs next. Waiting for them
# leaves the peer as fast as it is, which OMP_WAIT_POLICY=PASSIVE does not.
_SETTLE_SECONDS = 0.25

_ENVIRONMENT = {
    "KERAS_BACKEND": "jax",
    # Ours and the peer's arrays share one device.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    # What a peer compiles is to be compiled, and not kept where a run would look for it.
    "JAX_ENABLE_COMPILATION_CACHE": "false",
}


class PeerProcess:
    """A peer that runs; a context manager that ends its process.

    Attributes:
      description: its parameters, versions and notes.
      first_call_s: seconds of its first step or pass by program, compilation included.
    """

    def __init__(self, name: str, task: Task):
        """Start the process and wait until it is ready.

        Raises:
          CannotError: it cannot run the task.
        """
        # Closed by `close`.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        threads = str(task.threads)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bloodcell_jax.benchmark.peers.worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | _ENVIRONMENT | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
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
        """Run a window of `train` or `inference`; returns its seconds.

        Raises:
          CannotError: the process ended.
        """
        seconds = self._ask(json.dumps({"program": program, "steps": steps}))["seconds"]
        time.sleep(_SETTLE_SECONDS)
        return seconds

    def _ask(self, line: str) -> dict[str, Any]:
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
            return "out of memory; a smaller --config.train.batch_size may do"
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
