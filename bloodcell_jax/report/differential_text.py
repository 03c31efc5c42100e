"""The differential count as text for the command line."""

import numpy as np

from bloodcell_jax.evaluate.differential import Differential
from bloodcell_jax.names import full_class_name
from bloodcell_jax.report.text_table import aligned

# Folders that stand on a terminal; the page has all of them.
_MOST_FOLDERS = 12


def differential_text(differential: Differential, width: int) -> str:
    """Return the count of each class and its share, over all images and, if there are several folders, in each.

    Args:
      differential: the counts.
        If the model does not know some of the images, a last line says how many.
      width: characters of a line; folders that do not fit stand in a further table below.
    """
    names = [full_class_name(name) for name in differential.class_names]
    unknown = sum(differential.unknown.values())
    columns = [_column("all", differential.total, unknown if unknown else None)]
    if len(differential.folders) > 1:
        columns += [
            _column(folder, counts, differential.unknown[folder] if unknown else None)
            for folder, counts in differential.folders.items()
        ][:_MOST_FOLDERS]
    first = ["class", *names, "images", *(["of these, not known"] if unknown else [])]
    text = "\n\n".join(map(_table, _divided(first, columns, width)))
    left_out = len(differential.folders) - _MOST_FOLDERS
    return f"{text}\n{left_out:,} more folders; --page=FILE.html shows all of them" if left_out > 0 else text


def _column(title: str, counts: np.ndarray, unknown: int | None) -> list[str]:
    total = counts.sum()
    return [title, *(f"{n:,} {n / total:>6.1%}" for n in (*counts, total, *([] if unknown is None else [unknown])))]


def _divided(first: list[str], columns: list[list[str]], width: int) -> list[list[list[str]]]:
    """Return the columns as tables of at most `width` characters, each of which begins with the first column."""
    tables, room = [[first]], width - max(map(len, first))
    for column in columns:
        needed = 2 + max(map(len, column))
        if needed > room and len(tables[-1]) > 1:
            tables.append([first])
            room = width - max(map(len, first))
        tables[-1].append(column)
        room -= needed
    return tables


def _table(columns: list[list[str]]) -> str:
    return aligned(list(zip(*columns, strict=True)))
