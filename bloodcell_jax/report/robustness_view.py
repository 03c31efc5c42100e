"""What pages show of the suites of corruptions that a split was scored under."""

from typing import Any

from bloodcell_jax.workdir.json_files import read_json
from bloodcell_jax.workdir.layout import EvaluationFolder
from bloodcell_jax.workdir.suite_records import check_suite, corruptions_of


def robustness_view(folder: EvaluationFolder) -> list[dict[str, Any]]:
    """Return a table for each suite: the balanced error of each corruption and severity, worst corruption first.

    Raises:
      DataError: a file does not have the format that this library writes.
    """
    return [_table(check_suite(read_json(path), path)) for path in folder.suites().values()]


def _table(suite: dict[str, Any]) -> dict[str, Any]:
    clean, mean = (1 - suite[which]["balanced_accuracy"] for which in ("clean", "mean"))
    rows = []
    for name, levels in corruptions_of(suite).items():
        errors = [1 - of_level["balanced_accuracy"] for of_level in levels.values()]
        average = sum(errors) / len(errors)
        rows.append({"name": name.replace("_", " "), "errors": errors, "mean": average, "above_clean": average - clean})
    rows.sort(key=lambda row: -row["mean"])
    severities = list(next(iter(corruptions_of(suite).values())))
    about = {"name": suite["suite"]["name"], "version": suite["suite"]["version"]}
    return about | {"severities": severities, "rows": rows, "clean": clean, "mean": mean, "worst": rows[0]["name"]}
