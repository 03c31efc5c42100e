"""Policy strings: `name[:option=value,...]` joined by `|`, such as `d4|hue:delta=0.02,p=0.5|randaugment:n=2,m=9`."""

import difflib
from dataclasses import dataclass

from bloodcell_jax.augment.declaration import Operation
from bloodcell_jax.augment.operations import ALIASES, MIXES, OPERATIONS, PROBABILITY
from bloodcell_jax.augment.options import Value, format_value, parse_value
from bloodcell_jax.errors import UsageError


@dataclass(frozen=True)
class Policy:
    """The operations that `parse_policy` or `parse_mix` read from a string. `str` returns the canonical string.

    Attributes:
      operations: (name, ((option, value), ...)) of each operation in turn. A value is a number, a range or a word.
    """

    operations: tuple[tuple[str, tuple[tuple[str, Value], ...]], ...] = ()

    def __str__(self) -> str:
        return "|".join(_format_operation(name, options) for name, options in self.operations) or "none"

    def __contains__(self, name: str) -> bool:
        return any(name == other for other, _ in self.operations)


def parse_policy(text: str) -> Policy:
    """Read a policy from a string. `none` and the empty string are the policy without operations.

    Raises:
      UsageError: an operation or an option is unknown, is empty or stands twice, or a value is not legal.
    """
    return _parse(text, OPERATIONS, "policy")


def parse_mix(text: str) -> Policy:
    """Read from a string how images are mixed. If `|` joins several mixes, each image goes through one of them.

    Raises:
      UsageError: `parse_policy` would raise it, or the sum of the shares `p` exceeds 1.
    """
    mix = _parse(text, MIXES, "mix")
    total = sum(mix_shares(mix))
    if total > 1 + 1e-9:
        raise UsageError(f"mix {text!r}: the sum of the shares p is {total:g}, which exceeds 1; lower them")
    return mix


def mix_shares(mix: Policy) -> list[float]:
    """Return the share of all images that each operation of a mix gets: its `p`, or an equal part by default."""
    return [share_of(dict(options), default=1 / len(mix.operations)) for _, options in mix.operations]


def share_of(options: dict[str, Value], default: float = 1.0) -> float:
    """Return `p` among the options of an operation: the share of the images that go through it."""
    share = options.get("p", default)
    assert isinstance(share, float | int), "the parser lets only numbers pass"
    return share


def _parse(text: str, known: dict[str, Operation], what: str) -> Policy:
    if text.strip() in ("", "none"):
        return Policy()
    try:
        return Policy(tuple(_parse_operation(part.strip(), known) for part in text.split("|")))
    except UsageError as error:
        raise UsageError(f"{what} {text!r}: {error}") from None


def _parse_operation(text: str, known: dict[str, Operation]) -> tuple[str, tuple[tuple[str, Value], ...]]:
    if not text:
        raise UsageError("an operation is missing before, between or after '|'; remove the '|'")
    name, colon, rest = (part.strip() for part in text.partition(":"))
    operation = known.get(ALIASES.get(name, name))
    if operation is None:
        close = [other for other in known if name in other] or difflib.get_close_matches(name, known)
        hint = f"did you mean {' or '.join(close)}?" if name and close else f"known are {', '.join(known)}"
        raise UsageError(f"unknown operation {name!r}; {hint}")
    options: dict[str, Value] = {}
    for pair in rest.split(",") if colon else ():
        key, value = _parse_option(pair.strip(), operation)
        if key in options:
            raise UsageError(f"{operation.name}: {key} is given twice; keep one")
        options[key] = value
    if operation.check is not None and (fault := operation.check(options)):
        raise UsageError(f"{operation.name}: {fault}")
    return operation.name, tuple(options.items())


def _parse_option(pair: str, operation: Operation) -> tuple[str, Value]:
    name, legal = operation.name, operation.options | {"p": PROBABILITY}
    key, equals, text = (part.strip() for part in pair.partition("="))
    if not (key and equals and text):
        raise UsageError(f"{name}: {pair!r} is not an option; write {name}:key=value, with {_signature(operation)}")
    if key not in legal:
        raise UsageError(f"{name}: unknown option {key!r}; the options are {_signature(operation)}")
    try:
        value = parse_value(text)
    except UsageError as error:
        raise UsageError(f"{name}: {key}={error}") from None
    must_be = legal[key].check(value)
    if must_be:
        raise UsageError(f"{name}: {key}={format_value(value)} must be {must_be}")
    return key, value


def _signature(operation: Operation) -> str:
    return ", ".join(f"{key}={format_value(value)}" for key, value in (operation.defaults | {"p": 1.0}).items())


def _format_operation(name: str, options: tuple[tuple[str, Value], ...]) -> str:
    pairs = ",".join(f"{key}={format_value(value)}" for key, value in options)
    return f"{name}:{pairs}" if pairs else name
