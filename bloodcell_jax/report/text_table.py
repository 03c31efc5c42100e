"""Text tables for the command line."""

from collections.abc import Sequence

from bloodcell_jax.names import visible


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as lines. The first column is aligned left, because it holds names; the others right."""
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )
