"""The legal values of an operation's options: numbers, ranges `a..b` and words."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from bloodcell_jax.errors import UsageError

Value = float | tuple[float, float] | str


@dataclass(frozen=True)
class Magnitude:
    """The largest change in both directions, from 0 to `limit`, or a range inside -limit..limit to draw from."""

    limit: float

    @property
    def legal(self) -> str:
        """The legal values, in words."""
        return f"a number from 0 to {self.limit:g} or a range a..b inside {-self.limit:g}..{self.limit:g}"

    def check(self, value: Value) -> str | None:
        """Return what the value must be, or None if it is legal."""
        if isinstance(value, str):
            return self.legal
        low, high = value if isinstance(value, tuple) else (0.0, value)
        return None if -self.limit <= low <= high <= self.limit else self.legal


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`.

    Attributes:
      whole: the number has no fraction.
      drawn: a range is legal too. Each image draws its number from the range.
    """

    low: float
    high: float
    whole: bool = False
    drawn: bool = False

    @property
    def legal(self) -> str:
        """The legal values, in words."""
        kind = "a whole number" if self.whole else "a number"
        or_range = f" or a range a..b inside {self.low:g}..{self.high:g}" if self.drawn else ""
        return f"{kind} from {self.low:g} to {self.high:g}{or_range}"

    def check(self, value: Value) -> str | None:
        """Return what the value must be, or None if it is legal."""
        if isinstance(value, str) or (isinstance(value, tuple) and not self.drawn):
            return self.legal
        low, high = value if isinstance(value, tuple) else (value, value)
        fits = self.low <= low <= high <= self.high and not (self.whole and (low % 1 or high % 1))
        return None if fits else self.legal


@dataclass(frozen=True)
class Word:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def legal(self) -> str:
        """The legal values, in words."""
        return f"one of {', '.join(self.words)}"

    def check(self, value: Value) -> str | None:
        """Return what the value must be, or None if it is legal."""
        return None if value in self.words else self.legal


@dataclass(frozen=True)
class Text:
    """A string with a grammar of its own.

    Attributes:
      parse: the parser of the grammar. It raises UsageError.
      example: a legal string.
    """

    parse: Callable[[str], object]
    example: str

    @property
    def legal(self) -> str:
        """The legal values, in words."""
        return f"a string such as {self.example}"

    def check(self, value: Value) -> str | None:
        """Return what the value must be and the parser's error, or None if it is legal."""
        try:
            self.parse(format_value(value))
        except UsageError as error:
            return f"{self.legal} ({error})"
        return None


Option = Magnitude | Number | Word | Text

# The option `compat` of several operations: `kerascv` repeats the faults of KerasCV 0.9 (docs/augmentation.md).
COMPAT = Word(("none", "kerascv"))


def parse_value(text: str) -> Value:
    """Return a number, a range `a..b`, or the text itself if it is neither.

    Raises:
      UsageError: a range runs downward.
    """
    start, dots, end = text.partition("..")
    try:
        low, high = float(start), float(end if dots else start)
    except ValueError:
        return text
    if low > high:
        raise UsageError(f"{text} runs downward; write {format_value((high, low))}")
    if not (math.isfinite(low) and math.isfinite(high)):
        return text
    return (low, high) if dots else low


def format_value(value: Value) -> str:
    """Return the text that `parse_value` reads as this value."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return "..".join(format_value(end) for end in value)
    return repr(float(value)).removesuffix(".0")
