"""The shapes of JSON values: what a value must be like, and what is wrong with one that is not, in words."""

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bloodcell_jax.errors import DataError


@dataclass(frozen=True)
class Kind:
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


TEXT = Kind("text", lambda value: isinstance(value, str))
WHOLE = Kind("a whole number", _is_integer)
NUMBER = Kind("a number", _is_number)
NUMBER_OR_NONE = Kind("a number or null", lambda value: value is None or _is_number(value))
TEXT_OR_NONE = Kind("text or null", lambda value: value is None or isinstance(value, str))
INDICES = Kind("a list of indices", _are_indices)
TRUTH = Kind("true or false", lambda value: isinstance(value, bool))
COUNT = Kind("a count", lambda value: _is_integer(value) and value >= 0)
SHARE = Kind("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
SHARE_OR_NONE = Kind("a number from 0 to 1, or null", lambda value: value is None or SHARE.holds(value))


class Each(dict):
    """An object with any keys; `Each(value=shape)` is the shape of all values."""


class OrNone(dict):
    """A value or null; `OrNone(value=shape)` is the shape of the value."""


def check(value: Any, shape: Any, place: Path | str, name: str = "", advice: str = "") -> None:
    """Check that a value has a shape.

    Args:
      value: what a file holds.
      shape: a kind, a list of one shape, an object of shapes by key (a key that ends in ? may be missing), `Each` or
        `OrNone`.
      place: the file, for the message.
      name: of the value inside the file; empty: the whole.
      advice: what to do; empty: make the file anew.

    Raises:
      DataError: it has not; names the file and the key.
    """
    fault = _fault(value, shape, name)
    if fault:
        refuse(place, fault, advice)


def refuse(place: Path | str, fault: str, advice: str = "") -> NoReturn:
    """Refuse a file.

    Raises:
      DataError: in any case.
    """
    raise DataError(f"{place}: {fault}; {advice or 'delete it and run the command that wrote it'}")


def _fault(value: Any, shape: Any, name: str) -> str | None:
    """Return what is wrong with a value, in words; None if it has the shape."""
    if isinstance(shape, Kind):
        return None if shape.holds(value) else _is_not(value, shape.name, name)
    if isinstance(shape, OrNone):
        return None if value is None else _fault(value, shape["value"], name)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _is_not(value, "a list", name)
        parts = ((item, shape[0], f"{name}[{number}]") for number, item in enumerate(value))
    elif not isinstance(value, dict):
        return _is_not(value, "an object", name)
    elif isinstance(shape, Each):
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
