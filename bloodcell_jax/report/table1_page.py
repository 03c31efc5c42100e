"""The page of the report's table: one file that needs no other."""

from pathlib import Path
from typing import Any

from bloodcell_jax.evaluate.metrics import METRICS
from bloodcell_jax.report.model_view import loss_figure
from bloodcell_jax.report.rendering import render, write_page
from bloodcell_jax.workdir import Workdir


def write_table1_page(path: Path, content: dict[str, Any], workdir: Path) -> None:
    """Write the page from the content of `table1.json`, and from the logs of the runs for their losses.

    Raises:
      DataError: a log is damaged.
      MachineError: the page cannot be written.
    """
    titles = {metric.key: metric.title for metric in METRICS}
    losses = [(run, loss_figure(Workdir(workdir / run["path"]).read_metrics())) for run in content["runs"]]
    page = render(
        "table1.html",
        content=content,
        titles=[(key, titles[key]) for key in content["keys"] if key != "accuracy"],
        losses=[(run, figure) for run, figure in losses if figure],
    )
    write_page(path, page)
