"""`--config=FILE[:arg]` and `--config.FIELD=VALUE` on an absl command line."""

import ast
import dataclasses
import re
import runpy
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags as ml_config_flags
from ml_collections.config_flags import config_path

from bloodcell_jax.config import Config, from_text, leaves, validate
from bloodcell_jax.errors import UsageError, UserError
from bloodcell_jax.names import did_you_mean, shell_word

_OVERRIDE = re.compile(r"--(?:no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)


def parse(values: flags.FlagValues, command: list[str]) -> tuple[list[str], Config]:
    """Parse a command line that has `--config`; returns the words left over and the validated configuration.

    The flag library turns an unknown field into a KeyError; fields are looked for here first. `none` unsets an
    optional field.

    Args:
      values: flags defined so far; the overrides are added.
      command: the verb and its flags.

    Raises:
      UsageError: names the file, field or value and what is possible instead.
      flags.Error: as absl raises it for other flags.
    """
    value, command = _take_config(command)
    return override(_load(value), values, command)


def override(config: Config, values: flags.FlagValues, command: list[str]) -> tuple[list[str], Config]:
    """Return what `parse` returns of a command line without `--config`; `config` is changed."""
    kinds = {path: field.type for path, field, _ in leaves(config)}
    parsed, left = {}, []
    for word in command:
        override = _OVERRIDE.fullmatch(word)
        if override and _is_parsed_here(config, kinds.get(override[1]), override[1], override[2]):
            # A path may be spelled in several ways, such as stages[-1]; only `leaves` has one.
            none = override[2] == "none"
            parsed[override[1]] = None if none else _parse(kinds[override[1]], override[1], override[2])
        else:
            left.append(word)
    holder = ml_config_flags.DEFINE_config_dataclass("config", config, flag_values=values, sys_argv=left)
    left = values(left)[1:]
    config = holder.value
    for path, parsed_value in parsed.items():
        config_path.set_value(path, config, parsed_value)
    _check_lengths(config, command)
    validate(config)
    return left, config


def _check_lengths(config: Config, command: Sequence[str]) -> None:
    """Check that epochs which the command line gives to a stage are not those of a stage that counts steps.

    Raises:
      UsageError: the configuration's own steps would win over them.
    """
    given = {override[1] for override in map(_OVERRIDE.fullmatch, command) if override}
    for i, stage in enumerate(config.stages):
        paths = (f"stages[{i}]", f"stages[{i - len(config.stages)}]")
        asked = {name for name in ("epochs", "steps") for path in paths if f"{path}.{name}" in given}
        if asked == {"epochs"} and stage.steps is not None:
            raise UsageError(
                f"--config.stages[{i}].epochs={stage.epochs}: the configuration says steps={stage.steps}, which wins; "
                f"add '--config.stages[{i}].steps=none'"
            )


def shipped() -> list[str]:
    """Return the names of the configurations that come with the library."""
    return sorted(path.stem for path in _shipped_folder().glob("[a-z]*.py"))


def _shipped_folder() -> Path:
    """Return the folder of the configurations: installed as bloodcell_jax.configs, beside the package in a checkout."""
    package = Path(__file__).parents[1]
    # By path: an editable install answers an import with the configurations of its own checkout, whichever runs.
    return next(folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir())


@dataclasses.dataclass(frozen=True)
class ChosenConfig:
    """What a command line that asks for help names as `--config`.

    Attributes:
      config: its values; those of `Config()` if none is named, or if its `get_config` refuses.
      whose: whose values these are.
      docstring: of the file.
    """

    config: Config
    whose: str
    docstring: str = ""


NOTHING_CHOSEN = ChosenConfig(Config(), "Config; a file has its own, and --config=FILE --help shows them")


def chosen(words: Sequence[str]) -> ChosenConfig:
    """Return the configuration that a command line names beside `--help`.

    Raises:
      UsageError: there is no such file.
    """
    values, _ = _split_config(words)
    if not values:
        return NOTHING_CHOSEN
    path = _path(values[-1])
    try:
        docstring = ast.get_docstring(ast.parse(Path(path.partition(":")[0]).read_text(encoding="utf-8"))) or ""
        return ChosenConfig(_load(path), values[-1], docstring)
    except UserError as error:  # It may want an argument, which its docstring names.
        return ChosenConfig(Config(), f"Config, because the file says: {error}", docstring)
    except (SyntaxError, ValueError, OSError) as error:
        raise UsageError(f"--config={values[-1]}: cannot be read ({error})") from error


def help_text(chosen: ChosenConfig) -> str:
    """Return every field of a configuration with its value, choices and meaning, as words of a shell."""
    lines = [
        "Configuration:",
        f"  --config=FILE.py[:arg]\n      a file with get_config() -> Config, or one of {', '.join(shipped())}",
        "  --config.FIELD=VALUE\n      overrides a field; none unsets an optional one. Values are those of "
        f"{chosen.whose}",
    ]
    for path, field, value in leaves(chosen.config):
        choices = field.metadata["choices"]
        legal = f" [{'|'.join(map(str, choices))}]" if choices else ""
        word = shell_word(f"--config.{path}={'none' if value is None else value}")
        lines.append(f"  {word}{legal}\n      {field.metadata['help']}")
    return "\n".join(lines)


def _take_config(command: list[str]) -> tuple[str, list[str]]:
    """Return the value of `--config`, the last one if there are several, and the command without it."""
    values, left = _split_config(command)
    if not values:
        for name in (word[2:].partition("=")[0] for word in left if word.startswith("--")):
            if hint := did_you_mean(name, ["config"], "--"):
                raise UsageError(f"--{name}: no such flag; {hint}")
        raise UsageError(f"--config: missing; give a Python file, or one of {', '.join(shipped())}")
    return _path(values[-1]), left


def _split_config(command: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the values of `--config`, and the command without them."""
    words, values, left = iter(command), [], []
    for word in words:
        if word == "--config":
            values.append(next(words, ""))
        elif word.startswith("--config="):
            values.append(word.partition("=")[2])
        else:
            left.append(word)
    return values, left


def _path(value: str) -> str:
    name, colon, argument = value.partition(":")
    if Path(name).is_file():
        return value
    if name in shipped():
        return f"{_shipped_folder() / name}.py{colon}{argument}"
    hint = did_you_mean(name, shipped(), "--config=")
    others = f"{'Give' if hint else 'give'} a Python file, or one of {', '.join(shipped())}"
    raise UsageError(f"--config={value}: no such file; {hint}{' ' if hint else ''}{others}")


def _load(value: str) -> Config:
    """Return what `get_config` of a file returns. The file is the user's code: it is executed once."""
    path, _, argument = value.partition(":")
    try:
        config = runpy.run_path(path)["get_config"](*[argument] if argument else [])
    except KeyError as error:
        raise UsageError(f"--config={value}: {error} is missing in it; define get_config() -> Config") from error
    except UserError:
        raise
    except Exception as error:  # The file is the user's code and may raise anything.
        raise UsageError(f"--config={value}: cannot be loaded ({type(error).__name__}: {error})") from error
    validate(config)
    return config


def _is_parsed_here(config: Config, kind: Any, path: str, text: str | None) -> bool:
    """Return whether the flag library cannot parse a value: `none`, or one of a field of several types.

    Raises:
      UsageError: there is no such field, or the value can be read in two ways.
    """
    if _has_several_types(kind):
        return True
    _check_field(config, path)
    if kind == tuple[str, ...] and text and "," in text and text[0] not in "([":
        several = tuple(part.strip() for part in text.split(","))
        raise UsageError(
            f'--config.{path}={text}: one text or several; write "--config.{path}={several}" or '
            f'"--config.{path}={(text,)}"'
        )
    return text == "none" and config_path.is_optional(path, config)


def _parse(kind: Any, path: str, text: str | None) -> Any:
    try:
        return from_text(kind, text or "")
    except ValueError as error:
        raise UsageError(f"--config.{path}={text}: not a value of it; train --help says what it takes") from error


def _has_several_types(kind: Any) -> bool:
    return isinstance(kind, types.UnionType) and len(set(typing.get_args(kind)) - {type(None)}) > 1


def _check_field(config: Config, path: str) -> None:
    try:
        kind = config_path.get_type(path, config)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        fields = [name for name, _, _ in leaves(config)]
        hint = did_you_mean(path, fields, "--config.") or "train --help lists the fields"
        raise UsageError(f"--config.{path}: no such field; {hint}") from error
    if dataclasses.is_dataclass(kind) or kind is list:
        example = next(name for name, _, _ in leaves(config) if name.startswith(path))
        raise UsageError(
            f"--config.{path}: holds several fields; set one of them, as in {shell_word(f'--config.{example}=...')}"
        )
