"""The page of a sweep: one file that needs no other."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from bloodcell_jax.report.plots import trial_history, values_over_field
from bloodcell_jax.report.rendering import render, write_page


def write_sweep_page(path: Path, content: dict[str, Any]) -> None:
    """Write the page from the content of `sweep.json`.

    Raises:
      MachineError: it cannot be written.
    """
    complete = [trial for trial in content["trials"] if trial["state"] == "complete"]
    history, fields = None, []
    if complete:
        numbers, values = [trial["number"] for trial in complete], [trial["value"] for trial in complete]
        running = np.maximum.accumulate if content["higher_is_better"] else np.minimum.accumulate
        history = Markup(trial_history(numbers, values, running(values)))
        fields = [(field["path"], *_field(field, complete)) for field in content["search"]]
    by_value = sorted(complete, key=lambda trial: trial["value"], reverse=content["higher_is_better"])
    others = [trial for trial in content["trials"] if trial["state"] != "complete"]
    trials = [trial | {"link": _link(path, trial["workdir"])} for trial in by_value + others]
    page = render("sweep.html", content=content, trials=trials, history=history, fields=fields)
    write_page(path, page)


def _link(page: Path, workdir: str | None) -> str | None:
    """Return the address of a trial's report from the page; None: it has none, as pruned and failed trials do."""
    if workdir is None or not (report := Path(workdir) / "report" / "index.html").exists():
        return None
    return quote(Path(os.path.relpath(report, page.parent.absolute())).as_posix())


def _field(field: dict[str, Any], complete: list[dict[str, Any]]) -> tuple[Markup, list[str]]:
    """Return the plot of the trials over a field, and the choices that the numbers of its axis stand for."""
    settings = [trial["values"][field["path"]] for trial in complete]
    choices = list(dict.fromkeys(settings)) if field["kind"] == "choice" else []
    places = [choices.index(setting) + 1 for setting in settings] if choices else settings
    values = [trial["value"] for trial in complete]
    return Markup(values_over_field(places, values, log=field["kind"] == "loguniform")), choices
