"""The verb `find_lr`."""

from absl import flags

from bloodcell_jax.cli.verb import Verb, required_path, say, value_of
from bloodcell_jax.config import Config


def _define_find_lr(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder for find_lr.json and find_lr.html", flag_values=values)
    flags.DEFINE_string("stage", None, "name or number of the stage; unset: the first one, 0", flag_values=values)
    flags.DEFINE_float("lowest", 1e-7, "learning rate of the first step", flag_values=values)
    flags.DEFINE_float("highest", 10.0, "learning rate of the last step", flag_values=values)
    flags.DEFINE_integer("steps", 100, "number of steps", lower_bound=20, flag_values=values)


def _find_lr(values: flags.FlagValues, config: Config) -> None:
    workdir = required_path(values, "workdir")
    from bloodcell_jax.devices.settings import configure_jax

    configure_jax(config.train.deterministic)
    from bloodcell_jax.report.find_lr_page import command_of
    from bloodcell_jax.run.find_lr import Range, find_learning_rate
    from bloodcell_jax.workdir import Workdir

    rates = Range(*(value_of(values, name) for name in ("lowest", "highest", "steps")))
    folder = Workdir(workdir)
    results = find_learning_rate(config, folder, stage=value_of(values, "stage"), rates=rates)
    place = f"stage {results['stage']['name']}, {len(results['rates'])} steps from a rate of {rates.lowest:g}"
    if results["suggestion"] is None:
        fall = f"the smoothed loss fell by less than {results['least_fall']:.0%}"
        say(f"{place}: no suggestion, because {fall}; try other rates, or more steps")
    else:
        others = (
            f"middle of the fall {results['valley']:.2g}, a tenth of the lowest point {results['before_lowest']:.2g}"
        )
        say(f"{place}: {command_of(results)}  ({others})")
    say(f"page: {folder.find_lr_page}")


FIND_LR = Verb(
    "suggest a learning rate: a range test of a stage, with its plot",
    """
  find_lr --config=quickstart --workdir=runs/rates
  find_lr --config=fine_tune:winner --workdir=runs/rates --stage=all --config.data.source=zip:cells.zip
  find_lr --config=pbc_scratch --workdir=runs/rates --lowest=1e-5 --highest=1 --steps=200

A stage trains for some steps, each at a higher learning rate, until its loss diverges. The suggestion is the rate at
which the smoothed loss falls most steeply. Nothing is trained for good: no checkpoint is written. docs/fine_tuning.md
says how far to trust it.""",
    _define_find_lr,
    _find_lr,
    has_config=True,
    has_source=True,
)
