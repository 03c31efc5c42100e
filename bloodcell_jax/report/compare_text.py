"""A comparison of runs as text for the command line."""

from collections.abc import Iterable, Sequence

from bloodcell_jax.evaluate.compare_runs import Comparison
from bloodcell_jax.report.compare_view import pair_sentences, score_rows, sensitivity_rows, training_rows
from bloodcell_jax.report.text_table import aligned


def compare_text(comparison: Comparison) -> str:
    """Return the scores, the paired comparisons, what differs in the configurations, and warnings."""
    names = [run.name for run in comparison.runs]
    parts = [
        _table(f"{comparison.split}, 95 % in ()", names, score_rows(comparison)),
        _table("sensitivity", names, sensitivity_rows(comparison)),
        _table("training", names, training_rows(comparison)),
        _table("configuration", names, comparison.differences)
        if comparison.differences
        else "configuration: no field differs",
        "\n".join("\n  ".join(pair_sentences(pair, names[0])) for pair in comparison.pairs),
        *(f"warning: {warning}" for warning in comparison.warnings),
    ]
    return "\n\n".join(parts)


def _table(title: str, names: Sequence[str], rows: Iterable[tuple[str, Sequence[object]]]) -> str:
    return aligned([(title, *names), *((row, *map(str, cells)) for row, cells in rows)])
