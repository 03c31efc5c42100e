"""The values that options of a policy's operations may have: numbers, ranges `a..b` and words."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from bloodcell_jax.errors import UsageError

Value = float | tuple[float, float] | str


@dataclass(frozen=True)
class Magnitude:
    """The largest change either way, 0 to `limit`, or a range inside -limit..limit to draw from."""

    limit: float

    def check(self, value: Value) -> str | None:
        """Return what a value must be, or None where it is legal."""
        low, high = value if isinstance(value, tuple) else (0.0, value)
        if not isinstance(value, str) and -self.limit <= low <= high <= self.limit:
            return None
        return f"a number from 0 to {self.limit:g} or a range a..b inside {-self.limit:g}..{self.limit:g}"


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`, or, where it is drawn per image, a range of them.

    Attributes:
      whole: it has no fraction.
      drawn: a range is legal.
    """

    low: float
    high: float
    whole: bool = False
    drawn: bool = False

    def check(self, value: Value) -> str | None:
        """Return what a value must be, or None where it is legal."""
        low, high = value if isinstance(value, tuple) else (value, value)
        fits = not isinstance(value, str) and self.low <= low <= high <= self.high
        if fits and (self.drawn or not isinstance(value, tuple)) and not (self.whole and (low % 1 or high % 1)):
            return None
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.low:g} to {self.high:g}{' or a range a..b of them' if self.drawn else ''}"


@dataclass(frozen=True)
class Word:
    """One of some words."""

    words: tuple[str, ...]

    def check(self, value: Value) -> str | None:
        """Return what a value must be, or None where it is legal."""
        return None if value in self.words else f"one of {', '.join(self.words)}"


@dataclass(frozen=True)
class Text:
    """A string with a grammar of its own, whose parser raises UsageError."""

    parse: Callable[[str], object]

    def check(self, value: Value) -> str | None:
        """Return what a value must be, or None where it is legal."""
        try:
            self.parse(format_value(value))
        except UsageError as error:
            return f"what it takes ({error})"
        return None


Option = Magnitude | Number | Word | Text


def parse_value(text: str) -> Value:
    """Return a number, a range `a..b` or, where it is neither, the word itself.

    Raises:
      UsageError: a range runs downwards or has no number at an end.
    """
    low, dots, high = text.partition("..")
    try:
        value = (float(low), float(high)) if dots else float(text)
    except ValueError:
        return text
    if isinstance(value, tuple) and value[0] > value[1]:
        raise UsageError(f"{text} runs downwards; write {format_value(value[::-1])}")
    return value if all(map(math.isfinite, value if dots else (value,))) else text


def format_value(value: Value) -> str:
    """Return what `parse_value` reads as this value."""
    if isinstance(value, tuple):
        return "..".join(format_value(end) for end in value)
    return repr(value).removesuffix(".0") if isinstance(value, float) else value
