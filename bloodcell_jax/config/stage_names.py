"""What stages are called in logs and reports."""

from collections.abc import Sequence


def unique_names(names: Sequence[str]) -> list[str]:
    """Return names of which no two are equal: a later one of the same name gets a number, as in `train (2)`."""
    unique: list[str] = []
    for name in names:
        number, given = 1, name
        while given in unique:
            number += 1
            given = f"{name} ({number})"
        unique.append(given)
    return unique
