"""The verb `report`."""

import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from bloodcell_jax.cli.verb import Verb, required_path, result_path, say, value_of
from bloodcell_jax.errors import UsageError

_PAGE = "compare.html"


def _define_report(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of a run whose report is written again", flag_values=values)
    flags.DEFINE_multi_string(
        "compare", [], "workdirs to set side by side, as in --compare runs/a runs/b", flag_values=values
    )
    flags.DEFINE_string("output", None, f"page of --compare; unset: {_PAGE} in the current folder", flag_values=values)


def _report(values: flags.FlagValues) -> None:
    compared = value_of(values, "compare")
    if compared:
        _compare(values, compared)
        return
    if value_of(values, "output"):
        raise UsageError("--output: belongs to --compare; the report of a run is report/index.html in its workdir")
    from bloodcell_jax.report import write_report

    say(f"report: {write_report(required_path(values, 'workdir'))}")


def _compare(values: flags.FlagValues, compared: Sequence[str]) -> None:
    if value_of(values, "workdir"):
        raise UsageError("--workdir, --compare: give one of them; --compare takes all runs that it compares")
    page = result_path(values, "output") if value_of(values, "output") else Path(_PAGE)
    if os.path.isdir(page):
        raise UsageError(f"--output={page}: is a folder; name an HTML file")
    from bloodcell_jax.evaluate.compare_runs import compare_runs
    from bloodcell_jax.report.compare_page import write_compare_page
    from bloodcell_jax.report.compare_text import compare_text
    from bloodcell_jax.workdir import Workdir
    from bloodcell_jax.workdir.output_files import check_unlike, is_stdout

    runs = [Workdir(os.path.expanduser(path)) for path in compared]
    of_splits = [folder for run in runs for folder in run.evaluations().values()]
    check_unlike(page, [file for place in (*runs, *of_splits) for file in place.files])
    comparison = compare_runs(compared)
    to_stderr = is_stdout(page)
    say(compare_text(comparison), to_stderr=to_stderr)
    write_compare_page(page, comparison)
    say(f"\npage: {page}", to_stderr=to_stderr)


REPORT = Verb(
    "rebuild a run's HTML report, or set runs side by side",
    """
  report --workdir=runs/first
  report --compare runs/first runs/second runs/third
  report --compare runs/* --output=atto_or_base.html

--compare prints scores with their intervals, the sensitivity for each class, the fields of the configurations that
differ, and writes them to a page. Every run is compared with the first one. Where both judged the same images, the
difference in accuracy has a paired interval, and McNemar's test.""",
    _define_report,
    _report,
    words="compare",
)
