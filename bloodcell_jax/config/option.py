"""How an option is declared, with its help, its legal values and whether it may change, and how all are listed."""

import dataclasses
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from typing import Any


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[Any] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    factory: Callable[[], Any] | None = None,
    may_change: bool = False,
    read_with: tuple[str, tuple[Any, ...]] | None = None,
) -> Any:
    """Return a dataclass field whose metadata hold its help text and its legal values.

    Args:
      default: its value unless the user sets another.
      help: what `--help` says.
      choices: legal values; None: any of its type.
      minimum: lowest legal value.
      maximum: highest legal value.
      factory: makes the default of a mutable field.
      may_change: a run may be resumed with another value.
      read_with: the option beside it that decides whether it is read at all, and the values with which it is.
    """
    metadata = {"help": help, "choices": choices, "minimum": minimum, "maximum": maximum, "may_change": may_change}
    metadata["read_with"] = read_with
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field, Any]]:
    """Yield (path, field, value) of every option, e.g. `stages[0].optimizer.learning_rate`.

    What is no group of options, though it should be, is a value itself: `validate` refuses it.
    """
    for f in dataclasses.fields(config):
        path, value = f"{prefix}{f.name}", getattr(config, f.name)
        if isinstance(f.type, type) and dataclasses.is_dataclass(f.type) and isinstance(value, f.type):
            yield from leaves(value, f"{path}.")
        elif (
            typing.get_origin(f.type) is list and isinstance(value, list) and all(map(dataclasses.is_dataclass, value))
        ):
            for i, item in enumerate(value):
                yield from leaves(item, f"{path}[{i}].")
        else:
            yield path, f, value
