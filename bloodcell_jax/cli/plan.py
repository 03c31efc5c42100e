"""The verb `plan`."""

import os
from pathlib import Path
from typing import Any

from absl import flags

from bloodcell_jax.cli.verb import Verb, json_output, say_results, value_of
from bloodcell_jax.config import Config
from bloodcell_jax.errors import UsageError

_EXAMPLES = 12_000


def _define_plan(values: flags.FlagValues) -> None:
    flags.DEFINE_multi_string(
        "topology",
        [],
        "a machine to compile for, such as tpu:v5e:4x4, tpu:v5p:2x2x2:slices=2, gpu:h100:8 or gpu:h100:2x8 (nodes x "
        "GPUs); repeat the flag for more. Another name lists all",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "examples",
        _EXAMPLES,
        "images of the data set; only their number counts, and none is read",
        lower_bound=24,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "largest_batch",
        True,
        "find the largest batch that fits, within 5 %, and what makes a stage fit that does not; it compiles about "
        "four more programs for each",
        flag_values=values,
    )
    flags.DEFINE_string(
        "compare", None, "JSON file of benchmark --output, to set beside the plan for its device", flag_values=values
    )
    flags.DEFINE_string("output", None, "JSON file to write the results to", flag_values=values)


def _plan(values: flags.FlagValues, config: Config) -> dict[str, Any]:
    # This process only asks others to compile: it leaves devices alone that may be there, and so do the compilers.
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "TPU_SKIP_MDS_QUERY": "1"}
    from bloodcell_jax.plan.topology import parse_topology, topology_forms

    names = value_of(values, "topology")
    if not names:
        raise UsageError(f"--topology: missing; there are {topology_forms()}")
    topologies = [parse_topology(name) for name in dict.fromkeys(names)]
    output = json_output(values)
    from bloodcell_jax.plan.command import check_extras, run_plan
    from bloodcell_jax.plan.compare import check_comparable, match, read_measured
    from bloodcell_jax.plan.table import format_plan
    from bloodcell_jax.workdir.output_files import check_unlike

    compare = Path(os.path.expanduser(value_of(values, "compare"))) if value_of(values, "compare") else None
    measured = None if compare is None else read_measured(compare)
    if output is not None and compare is not None:
        check_unlike(output, [compare])
    if measured is not None:
        check_comparable(measured, config, topologies)
    check_extras(topologies)
    results = run_plan(
        config,
        topologies,
        examples=value_of(values, "examples"),
        find_largest=value_of(values, "largest_batch"),
    )
    if measured is not None:
        results["measured"] = match(measured, results)
    say_results(format_plan(results), results, output)
    return results


PLAN = Verb(
    "what a run needs on machines that are not here: memory, collectives, what fits, time by the rates",
    """
  plan --config=convnext_base --topology=tpu:v5e:4x4 --topology=gpu:h100:8
  plan --config=convnext_base --config.train.batch_size=1024 --topology=gpu:h200:8 --output=plan.json
  plan --config=quickstart --topology=gpu:h100:1 --nolargest_batch --compare=benchmark-h100.json

The step of each stage is compiled for each topology, on this machine and by the compiler of that machine. No such
device and no data are needed; pip install 'bloodcell_jax[plan-tpu,plan-gpu]' brings the compilers. docs/plan.md says
what each figure means.""",
    _define_plan,
    _plan,
    has_config=True,
    has_json=True,
)
