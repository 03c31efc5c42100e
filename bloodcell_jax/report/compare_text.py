"""A comparison of runs as text for the command line."""

from collections.abc import Iterable, Sequence

from bloodcell_jax.evaluate.compare_runs import Comparison
from bloodcell_jax.report.compare_view import pair_sentences, score_rows, sensitivity_rows, split_note, training_rows
from bloodcell_jax.report.text_table import aligned


def compare_text(comparison: Comparison) -> str:
    """Return the scores, the paired comparisons, what differs in the configurations, and warnings."""
    names = [run.name for run in comparison.runs]
    parts = [
        _table(f"{comparison.split}, 95 % in ()", names, score_rows(comparison)),
        _table("sensitivity", names, sensitivity_rows(comparison)),
        _table("training", names, training_rows(comparison)),
        _configurations(comparison),
        "\n".join("\n  ".join(pair_sentences(pair, names[0])) for pair in comparison.pairs),
        *filter(None, [split_note(comparison.split)]),
        *(f"warning: {warning}" for warning in comparison.warnings),
    ]
    return "\n\n".join(parts)


def _configurations(comparison: Comparison) -> str:
    """Return a line for each field that differs: its values, each with the runs that have it."""
    lines = []
    for field, values in comparison.differences:
        runs_of: dict[str, list[str]] = {}
        for run, value in zip(comparison.runs, values, strict=True):
            runs_of.setdefault(value, []).append(run.name)
        lines.append(f"{field}: " + ", ".join(f"{value} ({', '.join(runs)})" for value, runs in runs_of.items()))
    return "\n".join(["configuration, where it differs:", *lines] if lines else ["configuration: no field differs"])


def _table(title: str, names: Sequence[str], rows: Iterable[tuple[str, Sequence[object]]]) -> str:
    return aligned([(title, *names), *((row, *map(str, cells)) for row, cells in rows)])
