"""The process that compiles for one topology. It answers in lines of JSON: what it does, and at last the plan.

A compiler for other machines is loaded for good, and may end its process; so each topology has one of its own.
"""

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from bloodcell_jax.config import Config, from_dict
from bloodcell_jax.errors import UserError
from bloodcell_jax.plan.topology import create_devices, parse_topology

if TYPE_CHECKING:
    from bloodcell_jax.run.run import Run


def main() -> None:
    """Read a request from standard input and answer it on standard output."""
    request = json.load(sys.stdin)
    try:
        _answer({"plan": _plan(request)})
    except UserError as error:
        _answer({"error": str(error), "exit_code": error.exit_code})


def _plan(request: dict[str, Any]) -> dict[str, Any]:
    import jax

    # How long a program takes to compile is a part of the plan.
    jax.config.update("jax_enable_compilation_cache", False)
    from bloodcell_jax.plan.advice import runs_that_need_less
    from bloodcell_jax.plan.shapes_run import create_shapes_run
    from bloodcell_jax.plan.stage_plan import plan_stage, usable_memory

    topology = parse_topology(request["topology"])
    accelerator, devices = topology.accelerator, create_devices(topology)
    config, find_more = from_dict(request["config"]), request["largest_batch"]

    def create(config: Config) -> "Run":
        return create_shapes_run(config, request["examples"], devices, usable_memory(accelerator))

    def say(text: str) -> None:
        _answer({"progress": f"{topology.name}: {text}"})

    run = create(config)
    smaller = partial(runs_that_need_less, run, config, create)
    stages = [
        plan_stage(run, stage, accelerator, smaller_runs=smaller if find_more else None, say=say)
        for stage in run.stages
    ]
    return {
        "topology": topology.name,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "slices": topology.slices,
        "batch_per_device": run.config.train.batch_size // len(devices),
        "feed": "streaming" if run.streams else "resident",
        "stages": stages,
    }


def _answer(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
