"""What the JSON files of a workdir hold: each is checked where it is read, since anybody may have changed it.

A check returns the value that it was given. Keys that it does not know are left alone: a later version may write more.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bloodcell_jax.errors import DataError
from bloodcell_jax.regular_files import check_regular_file
from bloodcell_jax.workdir.value_shapes import (
    COUNT,
    INDICES,
    NUMBER,
    NUMBER_OR_NONE,
    SHARE,
    SHARE_OR_NONE,
    TEXT,
    TEXT_OR_NONE,
    TRUTH,
    WHOLE,
    Each,
    OrNone,
    check,
    refuse,
)

# Lists inside lists of a file that this library writes, with room; a value of more overflows Python's stack.
_DEEPEST = 32


def parse_json(text: str, place: str, advice: str = "delete it and run the command that wrote it") -> Any:
    """Return the value of a JSON text.

    Args:
      text: of a file or line.
      place: its name in messages.
      advice: what to do if it is none.

    Raises:
      DataError: it is not JSON, or nested too deeply.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise DataError(f"{place}: not JSON ({reason}); {advice}") from error
    if text.count("[") + text.count("{") > _DEEPEST and _is_deep(value):
        raise DataError(f"{place}: not JSON of this library (nested too deeply); {advice}")
    return value


def read_lines(path: Path, check: Callable[[Any, Path, int], Any]) -> list[Any]:
    """Return the values of a file with one JSON value a line, none if it is missing; a line without an end is left out.

    Args:
      path: the file.
      check: takes a value, the path and the number of the line, and returns the value.

    Raises:
      DataError: the file cannot be read, a line is not JSON, or what `check` raises.
    """
    if not path.exists():
        return []
    check_regular_file(path)
    try:
        # A line that is still being written may end inside a character.
        *lines, _unfinished = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it readable") from error
    places = ((line, f"{path}, line {number}", number) for number, line in enumerate(lines, 1))
    return [check(parse_json(line, place, "delete that line"), path, number) for line, place, number in places]


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [item for container in level for item in _items(container)]
        if not level:
            return False
    return True


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


_ENVIRONMENT = {
    "started": TEXT,
    "data": {
        "sha256": TEXT,
        "source?": TEXT,
        "n?": WHOLE,
        "image_size?": WHOLE,
        "class_names?": [TEXT],
        "splits?": Each(value={"count": WHOLE, "per_class": Each(value=WHOLE)}),
        "notes?": [TEXT],
        "skipped?": Each(value=TEXT),
    },
    "steps?": WHOLE,
    "seconds_trained?": NUMBER,
    "steps_trained?": WHOLE,
    "model?": {"variant?": TEXT, "parameters?": WHOLE, "trainable?": Each(value=WHOLE)},
    "versions?": Each(value=TEXT_OR_NONE),
    "devices?": [TEXT],
    "command?": TEXT,
    "git_revision?": TEXT_OR_NONE,
}
_VIEW = {"shorter_side": WHOLE, "side": WHOLE}
_GROUPED = {"groups": TEXT, "count": WHOLE, "crossing": WHOLE, "per_split": Each(value=WHOLE)}
_SPLITS = {"sha256": TEXT, "splits": Each(value=INDICES)}
_OF_CLASS = {"precision": NUMBER, "recall": NUMBER, "f1": NUMBER, "support": WHOLE, "specificity?": NUMBER_OR_NONE}
_SCORES = {
    "n": WHOLE,
    "accuracy": NUMBER,
    "f1_macro": NUMBER,
    "per_class": Each(value=_OF_CLASS),
    "confusion_matrix": [[WHOLE]],
    "step?": WHOLE,
    "source?": TEXT,
    "split?": TEXT,
    "class_map?": Each(value=TEXT_OR_NONE),
    "dropped?": Each(value=WHOLE),
    "present_classes?": [TEXT],
    "intervals_by?": TEXT,
    "n_groups?": NUMBER_OR_NONE,
    "auc_macro_ovr_reason?": TEXT_OR_NONE,
}
_BINS = {"count": [COUNT], "confidence": [SHARE_OR_NONE], "accuracy": [SHARE_OR_NONE]}
# What `metrics.json` holds of confidence; earlier versions wrote none of it.
_CONFIDENCE = {
    "temperature": NUMBER,
    "ece": NUMBER,
    "mean_confidence": SHARE,
    "ece_by_chance": SHARE,
    "calibration": OrNone(value={"examples": COUNT, "errors": COUNT, "ece": SHARE, "holds_val": TRUTH}),
    "before_temperature": {"nll": NUMBER, "ece": SHARE, "brier": NUMBER, "reliability": _BINS},
    "reliability": _BINS,
    "risk_coverage": {"aurc": SHARE, "confidence": [SHARE], "coverage": [SHARE], "error": [SHARE]},
    "kept": OrNone(
        value={
            "wanted_error": SHARE,
            "confidence": SHARE,
            "coverage": SHARE,
            "error": SHARE_OR_NONE,
            "coverage_val": SHARE,
        }
    ),
    "out_of_distribution": OrNone(
        value={
            "refused": COUNT,
            "refused_share": SHARE,
            "accuracy_known": SHARE_OR_NONE,
            "refused_share_by": Each(value=SHARE),
        }
    ),
}
_OF_SLICE = {"n": WHOLE, "accuracy": NUMBER, "balanced_accuracy": NUMBER, "f1_macro": NUMBER}
_MOST_WRONG = [
    {
        "id": TEXT,
        "label": TEXT,
        "predicted": TEXT,
        "confidence": NUMBER,
        "probability_of_label": NUMBER,
        "png": TEXT,
    }
]
_BAD_STEP = {"step": WHOLE, "reason": TEXT, "loss": NUMBER_OR_NONE, "ids": [TEXT]}


def check_environment(value: Any, path: Path) -> dict[str, Any]:
    """Check the content of `environment.json`.

    Raises:
      DataError: it is none; names the file and the key.
    """
    check(value, _ENVIRONMENT, path)
    if value["data"].get("view") is not None:
        check(value["data"]["view"], _VIEW, path, "data.view")
    if value.get("weights") is not None:
        check(value["weights"], {"licence?": TEXT, "source?": TEXT}, path, "weights")
    return value


def check_splits(value: Any, path: Path) -> dict[str, Any]:
    """Check the content of `splits.json`.

    Raises:
      DataError: it is none; names the file and the key.
    """
    check(value, _SPLITS, path)
    by = value.get("by") or {}
    check(by, {"groups?": TEXT_OR_NONE, "given?": [TEXT], "duplicates?": TRUTH}, path, "by")
    if by.get("groups"):
        check(by, _GROUPED, path, "by")
    return value


def check_metrics_line(value: Any, path: Path, number: int) -> dict[str, Any]:
    """Check a line of `metrics.jsonl`: its step, the name of its stage, and numbers.

    Raises:
      DataError: it is none; names the file, the line and the key.
    """
    place, advice = f"{path}, line {number}", "delete that line"
    check(value, {"step": WHOLE, "stage?": TEXT}, place, advice=advice)
    numbers = {name: item for name, item in value.items() if "/" in name or name in ("lr", "epoch", "skipped_steps")}
    check(numbers, Each(value=NUMBER_OR_NONE), place, advice=advice)
    return value


def check_bad_step(value: Any, path: Path, number: int) -> dict[str, Any]:
    """Check a line of `bad_steps.jsonl`.

    Raises:
      DataError: it is none; names the file, the line and the key.
    """
    check(value, _BAD_STEP, f"{path}, line {number}", advice="delete that line")
    return value


def check_scores(value: Any, path: Path) -> dict[str, Any]:
    """Check the content of `metrics.json` or `before.json` of an evaluated split.

    Raises:
      DataError: it is none; names the file and the key.
    """
    check(value, _SCORES, path)
    _check_intervals(value, path)
    classes, rows = len(value["per_class"]), value["confusion_matrix"]
    if len(rows) != classes or any(len(row) != classes for row in rows):
        refuse(path, f"confusion_matrix does not have a row and a column for each of {classes} classes")
    if value.get("intervals_by") == "groups":
        check(value, {"n_groups": WHOLE}, path)
    for scores in value["per_class"].values():
        _check_intervals(scores, path, ("recall_ci95", "specificity_ci95"))
    check(value.get("slices", {}), Each(value=Each(value=_OF_SLICE)), path, "slices")
    for values in value.get("slices", {}).values():
        for scores in values.values():
            _check_intervals(scores, path)
    if "risk_coverage" in value:
        _check_confidence(value, path)
    return value


def _check_confidence(value: dict[str, Any], path: Path) -> None:
    check(value, _CONFIDENCE, path)
    bins = {"reliability": value["reliability"], "before_temperature": value["before_temperature"]["reliability"]}
    curve = {name: value["risk_coverage"][name] for name in ("confidence", "coverage", "error")}
    for name, columns in (bins | {"risk_coverage": curve}).items():
        lengths = {len(columns[column]) for column in columns}
        if len(lengths) > 1 or 0 in lengths:
            refuse(path, f"{name} has lists of {' and '.join(map(str, sorted(lengths)))} values, not of one length")


def _check_intervals(
    scores: dict[str, Any], path: Path, names: tuple[str, ...] = ("accuracy_ci95", "f1_macro_ci95")
) -> None:
    for name in names:
        if scores.get(name) is not None:
            check(scores[name], [NUMBER], path, name)
            if len(scores[name]) != 2:
                refuse(path, f"{name} has {len(scores[name])} numbers, and an interval has two")


def check_evaluation(value: Any, path: Path) -> dict[str, Any]:
    """Check the content of `metrics.json` as the verb `evaluate` writes it.

    Raises:
      DataError: it is none; names the file and the key.
    """
    check_scores(value, path)
    check(value, {"source": TEXT, "split": TEXT, "present_classes": [TEXT]}, path)
    if value.get("forced_choice") is not None:
        check_scores(value["forced_choice"], path)
    return value


def check_most_wrong(value: Any, path: Path) -> list[dict[str, Any]]:
    """Check the content of `most_wrong.json`.

    Raises:
      DataError: it is none; names the file and the key.
    """
    check(value, _MOST_WRONG, path)
    for entry in value:
        if not re.fullmatch(r"[A-Za-z0-9+/=\s]*", entry["png"]):
            refuse(path, "png is no base64")
    return value
