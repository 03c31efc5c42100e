"""The page of a range test: one file that needs no other."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from bloodcell_jax.names import shell_word
from bloodcell_jax.report.plots import losses_over_rates
from bloodcell_jax.report.rendering import render, write_page


def write_find_lr_page(path: Path, results: dict[str, Any]) -> None:
    """Write the page of the content of `find_lr.json`.

    Raises:
      MachineError: it cannot be written.
    """
    plot = losses_over_rates(results["rates"], results["losses"], results["smoothed"], chosen=results["suggestion"])
    write_page(path, render("find_lr.html", results=results, plot=Markup(plot), command=command_of(results)))


def command_of(results: dict[str, Any]) -> str | None:
    """Return the flag that sets the suggestion; None if there is none."""
    if results["suggestion"] is None:
        return None
    path = f"stages[{results['stage']['number']}].optimizer.learning_rate"
    return shell_word(f"--config.{path}={results['suggestion']:.2g}")
