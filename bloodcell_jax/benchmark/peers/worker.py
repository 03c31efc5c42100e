"""The process of a peer: `python -m bloodcell_jax.benchmark.peers.worker NAME`.

The first line on standard input is the task. Each further line asks for a window: `{"program": "train", "steps": 3}`.
The process answers each line with one line of JSON. After the answer `{"cannot": reason}`, it ends. Everything that the
peer prints goes to standard error.
"""

import importlib
import json
import os
import sys
import time
from dataclasses import asdict, fields
from typing import Any

from bloodcell_jax.benchmark.peers import PEERS
from bloodcell_jax.benchmark.peers.task import CannotError, PeerPrograms, Task
from bloodcell_jax.config import OptimizerConfig
from bloodcell_jax.models.variants import Variant


def task_to_line(task: Task) -> str:
    """Return a task as one line of JSON, as the process reads it."""
    return json.dumps(asdict(task))


def _task_of_line(line: str) -> Task:
    values = json.loads(line)
    variant: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values["variant"].items()
    }
    nested = {"variant": Variant(**variant), "optimizer": OptimizerConfig(**values["optimizer"])}
    return Task(**values | nested)


def main(name: str) -> None:
    """Run the windows of the peer `name` until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        programs = build_programs(name, _task_of_line(sys.stdin.readline()))
    except CannotError as error:
        answer({"cannot": str(error)})
        return
    described = [field.name for field in fields(PeerPrograms) if field.name not in ("train", "inference")]
    answer({field: getattr(programs, field) for field in described})
    for line in sys.stdin:
        asked = json.loads(line)
        start = time.perf_counter()
        getattr(programs, asked["program"])(asked["steps"])
        answer({"seconds": time.perf_counter() - start})


def build_programs(name: str, task: Task) -> PeerPrograms:
    """Return the programs of a peer, in this process.

    Raises:
      CannotError: the peer cannot run the task, or its network has another number of parameters.
    """
    module = importlib.import_module(f"bloodcell_jax.benchmark.peers.{PEERS[name].module}")
    programs = module.build(task)
    if programs.parameters != task.parameters:
        raise CannotError(
            f"its {task.name} is another network: it has {programs.parameters:,} parameters, ours {task.parameters:,}"
        )
    return programs


if __name__ == "__main__":
    main(sys.argv[1])
