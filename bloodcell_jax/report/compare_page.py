"""The page of a comparison of runs: one file that needs no other."""

from pathlib import Path

from bloodcell_jax.evaluate.compare_runs import Comparison
from bloodcell_jax.report.compare_view import pair_sentences, score_rows, sensitivity_rows, split_note, training_rows
from bloodcell_jax.report.rendering import render
from bloodcell_jax.workdir.output_files import open_output


def write_compare_page(path: Path, comparison: Comparison) -> None:
    """Write the page.

    Raises:
      MachineError: it cannot be written.
    """
    names = [run.name for run in comparison.runs]
    html = render(
        "compare.html",
        names=names,
        paths=[run.workdir.path for run in comparison.runs],
        split=comparison.split,
        split_note=split_note(comparison.split),
        warnings=comparison.warnings,
        scores=score_rows(comparison),
        sensitivities=sensitivity_rows(comparison),
        pairs=[pair_sentences(pair, names[0]) for pair in comparison.pairs],
        differences=comparison.differences,
        training=training_rows(comparison),
    )
    with open_output(path) as file:
        file.write(html)
