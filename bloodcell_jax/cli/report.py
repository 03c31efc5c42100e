"""The verb `report`."""

from absl import flags

from bloodcell_jax.cli.verb import Verb, required_path, say


def _define_report(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of a run", flag_values=values)


def _report(values: flags.FlagValues) -> None:
    from bloodcell_jax.report import write_report

    say(f"report: {write_report(required_path(values, 'workdir'))}")


REPORT = Verb(
    "rebuild a run's HTML report",
    """
  report --workdir=runs/first""",
    _define_report,
    _report,
)
