"""The page of a cross-validation: one file that needs no other."""

from pathlib import Path
from typing import Any

from bloodcell_jax.evaluate.metrics import METRICS
from bloodcell_jax.report.rendering import render, write_page


def write_crossval_page(path: Path, content: dict[str, Any]) -> None:
    """Write the page from the content of `crossval.json`.

    Raises:
      MachineError: it cannot be written.
    """
    joint = {"Out of fold": content["out_of_fold"]}
    if "ensemble" in content:
        joint["Ensemble, test"] = content["ensemble"]
    soups = [soup for soup in content["soup"]["seeds"] if soup["test"]]
    joint |= {f"Soup of seed {soup['seed']}, test": soup["test"] for soup in soups}
    page = render("crossval.html", metrics=METRICS, content=content, joint=joint)
    write_page(path, page)
