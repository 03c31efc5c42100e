"""What a verb is, and flags that several verbs share."""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags

from bloodcell_jax.errors import UsageError
from bloodcell_jax.names import visible


@dataclass(frozen=True)
class Verb:
    """One verb.

    Attributes:
      summary: what it does, in the overview and above its help.
      usage: examples.
      define: defines its flags.
      run: takes the flags and, if `has_config`, the configuration. If `has_json`, it returns its results as one object
        of JSON; None: another process says them.
      has_config: it takes `--config`.
      has_source: it takes a data source, so its help lists the kinds.
      has_json: it takes `--json`: standard output then has its results alone, and standard error what it says.
      words: the flag whose further values are the words that no flag takes, as in `--compare A B`; None: refuse them.
    """

    summary: str
    usage: str
    define: Callable[[flags.FlagValues], None]
    run: Callable[..., dict[str, Any] | None]
    has_config: bool = False
    has_source: bool = False
    has_json: bool = False
    words: str | None = None

    def create_flags(self) -> flags.FlagValues:
        """Return its flags, with their defaults."""
        values = flags.FlagValues()
        self.define(values)
        if self.has_json:
            text = "print the results as one JSON object on standard output, and nothing else there"
            flags.DEFINE_bool("json", False, text, flag_values=values)
        return values

    def call(self, values: flags.FlagValues, *config: Any) -> None:
        """Run it with parsed flags and, if it has one, a configuration.

        Raises:
          UserError: what it raises; or `--json` and `--output` both want standard output.
        """
        if not (self.has_json and value_of(values, "json")):
            self.run(values, *config)
            return
        _check_json_is_alone(values)
        with contextlib.redirect_stdout(sys.stderr):
            results = self.run(values, *config)
        if results is not None:
            print(json.dumps(results, indent=2, allow_nan=False))


def _check_json_is_alone(values: flags.FlagValues) -> None:
    from bloodcell_jax.workdir.output_files import is_stdout

    output = value_of(values, "output") if "output" in values else None
    if output is not None and (output == "-" or is_stdout(Path(os.path.expanduser(output)))):
        raise UsageError(f"--json, --output={output}: both go to standard output; name a file by --output")


def value_of(values: flags.FlagValues, name: str) -> Any:
    """Return the value of a flag."""
    return values[name].value


def required(values: flags.FlagValues, name: str) -> str:
    """Return the value of a flag that must be given."""
    if not value_of(values, name):
        raise UsageError(f"--{name}: missing; {values[name].help}")
    return value_of(values, name)


def required_path(values: flags.FlagValues, name: str) -> Path:
    """Return the path that a flag must give; a tilde is the home folder."""
    return Path(os.path.expanduser(required(values, name)))


def result_path(values: flags.FlagValues, name: str) -> Path:
    """Return the file for results that a flag must give; - is standard output."""
    return Path("/dev/stdout") if value_of(values, name) == "-" else required_path(values, name)


def json_output(values: flags.FlagValues) -> Path | None:
    """Return the JSON file that `--output` names for results; None if it names none."""
    output = Path(os.path.expanduser(value_of(values, "output"))) if value_of(values, "output") else None
    if output is not None and os.path.isdir(output):
        raise UsageError(f"--output={output}: is a folder; name a JSON file")
    return output


def say_results(text: str, results: dict[str, Any], output: Path | None) -> None:
    """Print results as text, and write them to the file of `--output`, which may be standard output."""
    from bloodcell_jax.workdir.output_files import is_stdout, open_output

    say(text, to_stderr=output is not None and is_stdout(output))
    if output is not None:
        with open_output(output) as file:
            file.write(json.dumps(results, indent=2, allow_nan=False) + "\n")


def define_raw_names(values: flags.FlagValues) -> None:
    """Define the flag of the verbs that write names into a CSV."""
    flags.DEFINE_bool(
        "raw_names",
        False,
        "write the names of files and classes into CSVs as they are; unset: an apostrophe stands before a name that a "
        "spreadsheet would run as a formula, and control characters are escaped",
        flag_values=values,
    )


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print what a verb has to say; no name in it can steer the terminal."""
    print(visible(text, keep="\n"), file=sys.stderr if to_stderr else sys.stdout, flush=True)
