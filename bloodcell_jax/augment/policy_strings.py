"""Policy strings: `name[:key=value,...]` joined by `|`, such as `d4|hue:delta=0.02,p=0.5|randaugment:n=2,m=9`."""

import difflib
from dataclasses import dataclass

from bloodcell_jax.augment.operations import MIXES, OPERATIONS, PROBABILITY, Operation
from bloodcell_jax.augment.options import Value, format_value, parse_value
from bloodcell_jax.errors import UsageError


@dataclass(frozen=True)
class Policy:
    """What `parse_policy` or `parse_mix` made of a string; `str` gives it back in canonical form.

    Attributes:
      operations: (name, ((option, value), ...)) of each operation in turn; a value is a number, a range or a word.
    """

    operations: tuple[tuple[str, tuple[tuple[str, Value], ...]], ...] = ()

    def __str__(self) -> str:
        return "|".join(_format_operation(name, options) for name, options in self.operations) or "none"

    def __contains__(self, name: str) -> bool:
        return any(name == other for other, _ in self.operations)


def parse_policy(text: str) -> Policy:
    """Return the policy that a string describes; `none` and the empty string are the one without operations.

    Raises:
      UsageError: an operation or option is unknown, given twice or empty, or a value is of the wrong kind or size.
    """
    return _parse(text, OPERATIONS, "policy")


def parse_mix(text: str) -> Policy:
    """Return how images are mixed with each other; of several, joined by `|`, each image gets one.

    Raises:
      UsageError: as `parse_policy`, or the shares `p` add up to more than 1.
    """
    mix = _parse(text, MIXES, "mix")
    if sum(mix_shares(mix)) > 1 + 1e-9:
        raise UsageError(f"mix {text!r}: the shares p add up to more than 1; lower them")
    return mix


def mix_shares(mix: Policy) -> list[float]:
    """Return the share of all images that each operation of a mix gets: its `p`, by default an equal part."""
    return [dict(options).get("p", 1 / len(mix.operations)) for _, options in mix.operations]


def _parse(text: str, known: dict[str, Operation], what: str) -> Policy:
    if text.strip() in ("", "none"):
        return Policy()
    try:
        return Policy(tuple(_parse_operation(part.strip(), known) for part in text.split("|")))
    except UsageError as error:
        raise UsageError(f"{what} {text!r}: {error}") from None


def _parse_operation(text: str, known: dict[str, Operation]) -> tuple[str, tuple[tuple[str, Value], ...]]:
    name, colon, rest = (part.strip() for part in text.partition(":"))
    if not text:
        raise UsageError("an operation is missing before, between or after '|'; remove the '|'")
    if name not in known:
        close = [other for other in known if name in other] or difflib.get_close_matches(name, known)
        hint = f"did you mean {' or '.join(close)}?" if name and close else f"known are {', '.join(known)}"
        raise UsageError(f"unknown operation {name!r}; {hint}")
    legal = known[name].options | {"p": PROBABILITY}
    signature = _signature(known[name])
    options: dict[str, Value] = {}
    for pair in rest.split(",") if colon else ():
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not (key and equals and value):
            raise UsageError(f"{name}: {pair.strip()!r} is no option; write {name}:key=value, with {signature}")
        if key not in legal:
            raise UsageError(f"{name}: unknown option {key!r}; it takes {signature}")
        if key in options:
            raise UsageError(f"{name}: {key} is given twice; keep one")
        try:
            options[key] = parse_value(value)
        except UsageError as error:
            raise UsageError(f"{name}: {key}={error}") from None
        must_be = legal[key].check(options[key])
        if must_be:
            raise UsageError(f"{name}: {key}={format_value(options[key])} must be {must_be}")
    return name, tuple(options.items())


def _signature(operation: Operation) -> str:
    return ", ".join(f"{key}={format_value(value)}" for key, value in (operation.defaults | {"p": 1.0}).items())


def _format_operation(name: str, options: tuple[tuple[str, Value], ...]) -> str:
    pairs = ",".join(f"{key}={format_value(value)}" for key, value in options)
    return f"{name}:{pairs}" if pairs else name
