"""What `eval/<split>/<suite>.json` holds, which is checked where it is read."""

from pathlib import Path
from typing import Any

from bloodcell_jax.workdir.value_shapes import NUMBER, SHARE, TEXT, WHOLE, Each, check, refuse

# What stands beside the corruptions: clean, the mean of all, and the mean minus clean.
_SHARES, _DIFFERENCE = ("clean", "mean"), "relative"
_SCORE = {"accuracy": SHARE, "balanced_accuracy": SHARE}


def check_suite(value: Any, path: Path) -> dict[str, Any]:
    """Check the content of `<suite>.json`: scores of each corruption and severity, and the means of all.

    Raises:
      DataError: it is none; names the file and the key.
    """
    check(value, {"suite": {"name": TEXT, "version": WHOLE}, **dict.fromkeys(_SHARES, _SCORE)}, path)
    check(value, {_DIFFERENCE: dict.fromkeys(_SCORE, NUMBER)}, path)
    corruptions = corruptions_of(value)
    check(corruptions, Each(value=Each(value=_SCORE)), path)
    severities = {tuple(levels) for levels in corruptions.values()}
    if len(severities) != 1 or () in severities:
        refuse(path, "its corruptions do not have the same severities")
    return value


def corruptions_of(suite: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of each corruption and severity in the content of `<suite>.json`."""
    return {name: levels for name, levels in suite.items() if name not in ("suite", *_SHARES, _DIFFERENCE)}
