"""What the JSON files of a workdir hold: each is checked where it is read, since anybody may have changed it.

A check returns the value that it was given. Keys that it does not know are left alone: a later version may write more.
"""

import json
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bloodcell_jax.errors import DataError
from bloodcell_jax.regular_files import check_regular_file

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


@dataclass(frozen=True)
class _Kind:
    """A kind of value: its name in messages, and whether a value is one."""

    name: str
    holds: Callable[[Any], bool]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return _is_integer(value) or isinstance(value, float)


def _are_indices(value: Any) -> bool:
    if not isinstance(value, list) or not set(map(type, value)) <= {int}:  # Millions of them, so as a whole.
        return False
    return not value or 0 <= min(value) <= max(value) < 2**31


_TEXT = _Kind("text", lambda value: isinstance(value, str))
_WHOLE = _Kind("a whole number", _is_integer)
_NUMBER = _Kind("a number", _is_number)
_NUMBER_OR_NONE = _Kind("a number or null", lambda value: value is None or _is_number(value))
_TEXT_OR_NONE = _Kind("text or null", lambda value: value is None or isinstance(value, str))
_INDICES = _Kind("a list of indices", _are_indices)


class _Each(dict):
    """An object with any keys; `_Each(value=shape)` is the shape of all values."""


# A shape is a kind, a list of one shape, an object of shapes by key (a key that ends in ? may be missing), or `_Each`.
_ENVIRONMENT = {
    "started": _TEXT,
    "data": {
        "sha256": _TEXT,
        "source?": _TEXT,
        "n?": _WHOLE,
        "image_size?": _WHOLE,
        "class_names?": [_TEXT],
        "splits?": _Each(value={"count": _WHOLE, "per_class": _Each(value=_WHOLE)}),
        "notes?": [_TEXT],
    },
    "steps?": _WHOLE,
    "seconds_trained?": _NUMBER,
    "model?": {"variant?": _TEXT, "parameters?": _WHOLE, "trainable?": _Each(value=_WHOLE)},
    "versions?": _Each(value=_TEXT_OR_NONE),
    "devices?": [_TEXT],
    "command?": _TEXT,
    "git_revision?": _TEXT_OR_NONE,
}
_VIEW = {"shorter_side": _WHOLE, "side": _WHOLE}
_GROUPED = {"groups": _TEXT, "count": _WHOLE, "crossing": _WHOLE, "per_split": _Each(value=_WHOLE)}
_SPLITS = {"sha256": _TEXT, "splits": _Each(value=_INDICES)}
_OF_CLASS = {"precision": _NUMBER, "recall": _NUMBER, "f1": _NUMBER, "support": _WHOLE}
_SCORES = {
    "n": _WHOLE,
    "accuracy": _NUMBER,
    "f1_macro": _NUMBER,
    "per_class": _Each(value=_OF_CLASS),
    "confusion_matrix": [[_WHOLE]],
    "step?": _WHOLE,
    "source?": _TEXT,
    "split?": _TEXT,
    "class_map?": _Each(value=_TEXT_OR_NONE),
    "dropped?": _Each(value=_WHOLE),
    "present_classes?": [_TEXT],
    "intervals_by?": _TEXT,
    "n_groups?": _NUMBER_OR_NONE,
    "auc_macro_ovr_reason?": _TEXT_OR_NONE,
}
_MOST_WRONG = [
    {
        "id": _TEXT,
        "label": _TEXT,
        "predicted": _TEXT,
        "confidence": _NUMBER,
        "probability_of_label": _NUMBER,
        "png": _TEXT,
    }
]
_BAD_STEP = {"step": _WHOLE, "reason": _TEXT, "loss": _NUMBER_OR_NONE, "ids": [_TEXT]}


def check_environment(value: Any, path: Path) -> dict[str, Any]:
    """Check the content of `environment.json`.

    Raises:
      DataError: it is none; names the file and the key.
    """
    _check(value, _ENVIRONMENT, path)
    if value["data"].get("view") is not None:
        _check(value["data"]["view"], _VIEW, path, "data.view")
    if value.get("weights") is not None:
        _check(value["weights"], {"licence?": _TEXT, "source?": _TEXT}, path, "weights")
    return value


def check_splits(value: Any, path: Path) -> dict[str, Any]:
    """Check the content of `splits.json`.

    Raises:
      DataError: it is none; names the file and the key.
    """
    _check(value, _SPLITS, path)
    by = value.get("by") or {}
    _check(by, {"groups?": _TEXT_OR_NONE}, path, "by")
    if by.get("groups"):
        _check(by, _GROUPED, path, "by")
    return value


def check_metrics_line(value: Any, path: Path, number: int) -> dict[str, Any]:
    """Check a line of `metrics.jsonl`: its step, the name of its stage, and numbers.

    Raises:
      DataError: it is none; names the file, the line and the key.
    """
    place, advice = f"{path}, line {number}", "delete that line"
    _check(value, {"step": _WHOLE, "stage?": _TEXT}, place, advice=advice)
    numbers = {name: item for name, item in value.items() if "/" in name or name in ("lr", "epoch", "skipped_steps")}
    _check(numbers, _Each(value=_NUMBER_OR_NONE), place, advice=advice)
    return value


def check_bad_step(value: Any, path: Path, number: int) -> dict[str, Any]:
    """Check a line of `bad_steps.jsonl`.

    Raises:
      DataError: it is none; names the file, the line and the key.
    """
    _check(value, _BAD_STEP, f"{path}, line {number}", advice="delete that line")
    return value


def check_scores(value: Any, path: Path) -> dict[str, Any]:
    """Check the content of `metrics.json` or `before.json` of an evaluated split.

    Raises:
      DataError: it is none; names the file and the key.
    """
    _check(value, _SCORES, path)
    for name in ("accuracy_ci95", "f1_macro_ci95"):
        if value.get(name) is not None:
            _check(value[name], [_NUMBER], path, name)
            if len(value[name]) != 2:
                _refuse(path, f"{name} has {len(value[name])} numbers, and an interval has two")
    classes, rows = len(value["per_class"]), value["confusion_matrix"]
    if len(rows) != classes or any(len(row) != classes for row in rows):
        _refuse(path, f"confusion_matrix does not have a row and a column for each of {classes} classes")
    if value.get("intervals_by") == "groups":
        _check(value, {"n_groups": _WHOLE}, path)
    return value


def check_evaluation(value: Any, path: Path) -> dict[str, Any]:
    """Check the content of `metrics.json` as the verb `evaluate` writes it.

    Raises:
      DataError: it is none; names the file and the key.
    """
    check_scores(value, path)
    _check(value, {"source": _TEXT, "split": _TEXT, "present_classes": [_TEXT]}, path)
    if value.get("forced_choice") is not None:
        check_scores(value["forced_choice"], path)
    return value


def check_most_wrong(value: Any, path: Path) -> list[dict[str, Any]]:
    """Check the content of `most_wrong.json`.

    Raises:
      DataError: it is none; names the file and the key.
    """
    _check(value, _MOST_WRONG, path)
    for entry in value:
        if not re.fullmatch(r"[A-Za-z0-9+/=\s]*", entry["png"]):
            _refuse(path, "png is no base64")
    return value


def _check(value: Any, shape: Any, place: Path | str, name: str = "", advice: str = "") -> None:
    fault = _fault(value, shape, name)
    if fault:
        _refuse(place, fault, advice)


def _refuse(place: Path | str, fault: str, advice: str = "") -> NoReturn:
    raise DataError(f"{place}: {fault}; {advice or 'delete it and run the command that wrote it'}")


def _fault(value: Any, shape: Any, name: str) -> str | None:
    """Return what is wrong with a value, in words; None if it has the shape."""
    if isinstance(shape, _Kind):
        return None if shape.holds(value) else _is_not(value, shape.name, name)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _is_not(value, "a list", name)
        parts = ((item, shape[0], f"{name}[{number}]") for number, item in enumerate(value))
    elif not isinstance(value, dict):
        return _is_not(value, "an object", name)
    elif isinstance(shape, _Each):
        parts = ((item, shape["value"], _inside(name, key)) for key, item in value.items())
    else:
        missing = [key for key in shape if not key.endswith("?") and key not in value]
        if missing:
            return f"{_inside(name, missing[0])} is missing"
        keys = {key.removesuffix("?"): part for key, part in shape.items()}
        parts = ((value[key], part, _inside(name, key)) for key, part in keys.items() if key in value)
    return next((fault for part in parts if (fault := _fault(*part))), None)


def _inside(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _is_not(value: Any, wanted: str, name: str) -> str:
    return f"{name or 'its content'} is {reprlib.repr(value)}, not {wanted}"
