"""The verb `train`."""

import logging
from typing import TYPE_CHECKING, Any

from absl import flags

from bloodcell_jax.cli.data_flags import define_fields
from bloodcell_jax.cli.verb import Verb, required_path, say, value_of
from bloodcell_jax.config import Config
from bloodcell_jax.devices.processes import MODES, check_devices, device_map, failing_together, join_processes
from bloodcell_jax.errors import UsageError
from bloodcell_jax.run.watch.preemption import StopSignals

if TYPE_CHECKING:
    from bloodcell_jax.run.job import Result


def _define_train(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "the run's folder; the same command in it resumes the run", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "delete the run in the workdir and start anew", flag_values=values)
    flags.DEFINE_bool(
        "dry_run",
        False,
        "print the data, the time and cost of the steps, and the parameters, and end",
        flag_values=values,
    )
    from bloodcell_jax.run.tracking.sinks import DEFAULT_SINKS, SINKS

    flags.DEFINE_list(
        "log_to",
        list(DEFAULT_SINKS),
        f"where metrics go besides metrics.jsonl, some of {', '.join(SINKS)}; empty: nowhere. A server takes what can "
        "no longer be repeated after a kill, so up to the last checkpoint; its address, project and secrets come from "
        "its own variables (docs/tracking.md)",
        flag_values=values,
    )
    flags.DEFINE_enum("distributed", "auto", MODES, "how the processes of one run find each other", flag_values=values)
    define_fields(values, ("skip_bad",))
    flags.DEFINE_string(
        "profile_steps",
        None,
        "FIRST:END; write a trace to the workdir's profile/; 10:15 traces steps 10 to 14",
        flag_values=values,
    )
    flags.DEFINE_integer("expected_devices", None, "refuse to start with another number of devices", flag_values=values)
    flags.DEFINE_float(
        "connect_seconds", 300, "how long the other processes are waited for", lower_bound=1, flag_values=values
    )
    flags.DEFINE_float(
        "heartbeat_seconds",
        100,
        "a process that shows no life for as long is dead and ends the others, with exit code 5",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_float(
        "grace_seconds",
        None,
        "after SIGTERM or SIGUSR1 the run ends within this time, saved or not, with exit code 75; unset: once saved",
        lower_bound=0,
        flag_values=values,
    )


def _profile_steps(text: str | None) -> range:
    """Return the steps of `--profile_steps=FIRST:END` without END; none if it is unset."""
    if text is None:
        return range(0)
    first, _, end = text.partition(":")
    if not (first.isdecimal() and end.isdecimal() and int(first) < int(end)):
        raise UsageError(f"--profile_steps={text}: give FIRST:END, two step numbers, the first one lower")
    return range(int(first), int(end))


def _train(values: flags.FlagValues, config: Config) -> dict[str, Any] | None:
    workdir = None if value_of(values, "dry_run") else required_path(values, "workdir")
    profile_steps = _profile_steps(value_of(values, "profile_steps"))
    if value_of(values, "skip_bad"):
        config.data.skip_bad = True
    # The signals come first: one that arrives during imports, loading or a compilation is answered as well.
    with StopSignals(ends_process=True, grace_seconds=value_of(values, "grace_seconds")) as signals:
        _join(values, deterministic=config.train.deterministic)
        with failing_together():
            is_main = _introduce(values)
            if workdir is None:
                from bloodcell_jax.run.dry_run import dry_run

                found = dry_run(config)
                if not is_main:
                    return None
                say(str(found))
                return found.to_dict()
            from bloodcell_jax.run.job import train_and_evaluate

            overwrite = value_of(values, "overwrite")
            result = train_and_evaluate(
                config,
                workdir,
                overwrite=overwrite,
                profile_steps=profile_steps,
                signals=signals,
                log_to=value_of(values, "log_to"),
            )
    if not is_main:
        return None
    _print_result(result)
    facts = {"workdir": str(result.workdir), "step": result.step, "best_step": result.best_step}
    return facts | {"metrics": result.metrics, "report": str(result.report)}


def _join(values: flags.FlagValues, *, deterministic: bool) -> None:
    """Set JAX up and join the other processes."""
    from bloodcell_jax.devices.settings import configure_jax

    configure_jax(deterministic)
    join_processes(
        value_of(values, "distributed"),
        connect_seconds=value_of(values, "connect_seconds"),
        heartbeat_seconds=value_of(values, "heartbeat_seconds"),
    )


def _introduce(values: flags.FlagValues) -> bool:
    """Tell the devices, and return whether this process speaks for all."""
    import jax

    check_devices(value_of(values, "expected_devices"))
    is_main = jax.process_index() == 0
    if is_main:
        say(f"devices: {device_map()}", to_stderr=True)
    else:
        # The others would say the same of the same data.
        logging.getLogger("bloodcell_jax").setLevel(logging.CRITICAL)
    return is_main


def _print_result(result: "Result") -> None:
    from bloodcell_jax.evaluate.outputs import summary

    for split, metrics in result.metrics.items():
        say(f"{split}: {summary(metrics)}")
    say(f"report: {result.report}")


TRAIN = Verb(
    "train a classifier, evaluate it and write its report; the same command resumes",
    """
  train --config=quickstart --workdir=runs/first
  train --config=configs/pbc_scratch.py --workdir=runs/pbc --config.data.source=zip:pbc.zip
  train --config=convnext_base --workdir=runs/base --config.model.weights=base.safetensors --dry_run""",
    _define_train,
    _train,
    has_config=True,
    has_source=True,
    has_json=True,
)
