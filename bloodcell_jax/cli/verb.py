"""What a verb is, and what the flags of several verbs have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from absl import flags

from bloodcell_jax.errors import UsageError


@dataclass(frozen=True)
class Verb:
    """One verb: what it does, how it is used, the flags it defines and the function that runs it."""

    summary: str
    usage: str
    define: Callable[[flags.FlagValues], None]
    run: Callable[..., None]
    has_config: bool = False


def required(values: flags.FlagValues, name: str) -> str:
    """Return the value of a flag that must be given."""
    if not values[name].value:
        raise UsageError(f"--{name}: missing; {values[name].help}")
    return values[name].value


def required_path(values: flags.FlagValues, name: str) -> Path:
    """Return the path that a flag must give; a tilde is the home folder."""
    return Path(required(values, name)).expanduser()


def define_skip_bad(values: flags.FlagValues) -> None:
    """Define `--skip_bad`."""
    help = "leave out pictures that cannot be read, naming each, instead of refusing"
    flags.DEFINE_bool("skip_bad", False, help, flag_values=values)


def parse_crop(text: str) -> int | None:
    """Return the value of `--crop`: pixels, or None for none."""
    if text == "none":
        return None
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"--crop={text}: give a number of pixels, or none")
    return int(text)
