"""A configuration as plain values for `config.json`, and back."""

import contextlib
import dataclasses
import reprlib
import typing
from typing import Any

from bloodcell_jax.config.fields import Config
from bloodcell_jax.config.validation import validate
from bloodcell_jax.errors import UsageError


def to_dict(config: Any) -> dict:
    """Return a configuration as plain dicts, lists and scalars, ready for JSON."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def from_dict(values: dict) -> Config:
    """Return the validated Config that `to_dict` made `values` from.

    Raises:
      UsageError: an unknown field, or a value that is not legal.
    """
    config = _build(Config, values, "config")
    validate(config)
    return config


def _build(kind: Any, value: Any, path: str) -> Any:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        fields = {f.name: f for f in dataclasses.fields(kind)}
        if not isinstance(value, dict):
            raise UsageError(f"{path}: expected the fields of {kind.__name__}, got {reprlib.repr(value)}")
        for name in value:
            if name not in fields:
                raise UsageError(f"{path}.{name}: no such field; {path} has {', '.join(fields)}")
        return kind(**{name: _build(fields[name].type, item, f"{path}.{name}") for name, item in value.items()})
    if typing.get_origin(kind) is list:
        if not isinstance(value, list):
            raise UsageError(f"{path}: expected a list, got {reprlib.repr(value)}")
        item_kind = typing.get_args(kind)[0]
        return [_build(item_kind, item, f"{path}[{i}]") for i, item in enumerate(value)]
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        return tuple(value)
    return value


def from_text(kind: Any, text: str) -> Any:
    """Return the value of a field of several types, such as `int | float | str | None`, that stands on a command line.

    It becomes the first of None (`none`), int, float and str that it can be and the field allows.

    Raises:
      ValueError: it can be none of them.
    """
    options = typing.get_args(kind)
    if text == "none" and type(None) in options:
        return None
    for option in (int, float, str):
        with contextlib.suppress(ValueError):
            if option in options:
                return option(text)
    raise ValueError(text)


def as_text(value: float | str | None) -> str:
    """Return the text of which `from_text` makes this value."""
    return "none" if value is None else str(value)
