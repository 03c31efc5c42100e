"""The verb `train`."""

import logging
import sys

from absl import flags

from bloodcell_jax.cli.verb import Verb, define_skip_bad, required_path
from bloodcell_jax.config import Config
from bloodcell_jax.errors import UsageError
from bloodcell_jax.train.distributed import MODES


def _define_train(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "the run's folder; the same command in it goes on", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "delete the run in the workdir and start anew", flag_values=values)
    flags.DEFINE_bool(
        "dry_run", False, "print the parameter table, the data and the step's cost, and end", flag_values=values
    )
    flags.DEFINE_enum(
        "distributed",
        "auto",
        MODES,
        "how the processes of one run find each other",
        flag_values=values,
    )
    define_skip_bad(values)
    flags.DEFINE_string(
        "profile_steps",
        None,
        "FIRST:END, such as 10:15; writes a trace of steps 10 to 14 to the workdir's profile/",
        flag_values=values,
    )
    flags.DEFINE_integer("expected_devices", None, "refuse to start with another number of devices", flag_values=values)


def _profile_steps(text: str | None) -> range:
    """Return the steps of `--profile_steps=FIRST:END`, END not among them; none where it is unset."""
    if text is None:
        return range(0)
    first, _, end = text.partition(":")
    if not (first.isdecimal() and end.isdecimal() and int(first) < int(end)):
        raise UsageError(f"--profile_steps={text}: give FIRST:END, two step numbers, the first one lower")
    return range(int(first), int(end))


def _train(values: flags.FlagValues, config: Config) -> None:
    workdir = None if values["dry_run"].value else required_path(values, "workdir")
    profile_steps = _profile_steps(values["profile_steps"].value)
    from bloodcell_jax.train.platform import prepare_platform

    prepare_platform(config.train.deterministic)
    import jax

    from bloodcell_jax.train.distributed import check_devices, device_map, join_processes

    join_processes(values["distributed"].value)
    check_devices(values["expected_devices"].value)
    is_main = jax.process_index() == 0
    if values["skip_bad"].value:
        config.data.skip_bad = True
    if not is_main:
        # One process speaks; the others would say the same of the same data.
        logging.getLogger("bloodcell_jax").setLevel(logging.CRITICAL)
    if is_main:
        print(f"devices: {device_map()}", file=sys.stderr, flush=True)
    if values["dry_run"].value:
        from bloodcell_jax.train.dry_run import describe_run

        print(describe_run(config))
        return
    from bloodcell_jax.train.job import train_and_evaluate

    result = train_and_evaluate(config, workdir, overwrite=values["overwrite"].value, profile_steps=profile_steps)
    if not is_main:
        return
    for split, metrics in result.metrics.items():
        print(f"{split}: accuracy {metrics['accuracy']:.4f}, macro F1 {metrics['f1_macro']:.4f}, n {metrics['n']}")
    print(f"report: {result.report}")


TRAIN = Verb(
    "train a classifier, evaluate it and write its report; the same command resumes",
    """
  train --config=quickstart --workdir=runs/first
  train --config=configs/pbc_scratch.py --workdir=runs/pbc --config.data.source=zip:pbc.zip
  train --config=convnext_base --workdir=runs/base --config.model.weights=base.safetensors --dry_run""",
    _define_train,
    _train,
    has_config=True,
)
