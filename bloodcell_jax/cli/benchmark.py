"""The verb `benchmark`."""

import os
from typing import Any

from absl import flags

from bloodcell_jax.benchmark import PARTS
from bloodcell_jax.benchmark.peers import check_peers
from bloodcell_jax.cli.verb import Verb, json_output, say_results, value_of
from bloodcell_jax.config import Config
from bloodcell_jax.errors import UsageError


def _define_benchmark(values: flags.FlagValues) -> None:
    flags.DEFINE_list(
        "peers",
        [],
        "implementations to run beside ours: torch, torch_compile, timm, keras_jax, flax_stock",
        flag_values=values,
    )
    flags.DEFINE_list(
        "parts",
        list(PARTS),
        "what to measure besides the training step and inference; none: nothing",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "windows", 5, "timed windows of each program, of which the median counts", lower_bound=5, flag_values=values
    )
    flags.DEFINE_string("output", None, "JSON file to write the results to", flag_values=values)


def _benchmark(values: flags.FlagValues, config: Config) -> dict[str, Any]:
    peers, parts = value_of(values, "peers"), value_of(values, "parts")
    parts = [] if parts == ["none"] else parts
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise UsageError(f"--parts={unknown[0]}: no such part; there are {', '.join(PARTS)}, or none")
    output = json_output(values)
    check_peers(peers)
    # The launches and the peers share the device with this process.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from bloodcell_jax.devices.settings import configure_jax

    configure_jax(config.train.deterministic)
    import jax

    # Compiling is measured, so it must not be read from a cache.
    jax.config.update("jax_enable_compilation_cache", False)
    from bloodcell_jax.benchmark.command import run_benchmark
    from bloodcell_jax.benchmark.table import format_results

    results = run_benchmark(config, peers=peers, parts=parts, windows=value_of(values, "windows"))
    say_results(format_results(results), results, output)
    return results


BENCHMARK = Verb(
    "throughput, step time, MFU, memory and launch on this machine, part by part, beside other implementations",
    """
  benchmark --config=quickstart
  benchmark --config=convnext_base --config.train.batch_size=256 --output=base.json
  benchmark --config=convnext_base --config.model.variant=convnext_tiny --peers=torch,torch_compile,timm --parts=none

Pixels and weights are random; nothing is read from the configuration's source. docs/benchmark.md says how each number
is measured.""",
    _define_benchmark,
    _benchmark,
    has_config=True,
    has_json=True,
)
