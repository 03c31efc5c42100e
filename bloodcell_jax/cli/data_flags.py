"""Flags that are fields of `DataConfig`: they have its names, defaults and help."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import flags

from bloodcell_jax.cli.verb import required, value_of
from bloodcell_jax.config import DataConfig
from bloodcell_jax.errors import UsageError

# Fields of `DataConfig` that say how the files of any source are found; those of geometry belong to the model.
_FINDING = ("include", "exclude", "class_level", "split_folders", "skip_bad")
_SOURCE = ("data_dir", "image_size", "crop", "class_names", *_FINDING)


def define_source(values: flags.FlagValues) -> None:
    """Define the flags of a verb that reads a data source without a configuration: fields of `DataConfig`."""
    define_fields(values, ("source", *_SOURCE))


def data_config(values: flags.FlagValues) -> DataConfig:
    """Return the configuration that the flags of `define_source` say."""
    return DataConfig(source=required(values, "source"), **fields_of(values, _SOURCE))


def define_finding(values: flags.FlagValues) -> None:
    """Define the flags that say which files of a source are read, and what their folders mean."""
    define_fields(values, _FINDING)


def finding(values: flags.FlagValues) -> dict[str, Any]:
    """Return the fields of `DataConfig` that the flags of `define_finding` say."""
    return fields_of(values, _FINDING)


def define_fields(values: flags.FlagValues, names: Sequence[str]) -> None:
    """Define a flag for each of these fields of `DataConfig`, with its default and its help."""
    for field in dataclasses.fields(DataConfig):
        if field.name not in names:
            continue
        name, text, default = field.name, field.metadata["help"], getattr(DataConfig, field.name)
        if field.type is bool:
            flags.DEFINE_bool(name, default, text, flag_values=values)
        elif field.type in (int, int | None) and name != "crop":
            flags.DEFINE_integer(name, default, text, lower_bound=field.metadata["minimum"], flag_values=values)
        elif field.type == tuple[str, ...]:
            flags.DEFINE_list(name, list(default), text, flag_values=values)
        else:
            flags.DEFINE_string(name, None if default is None else str(default), text, flag_values=values)


def fields_of(values: flags.FlagValues, names: Sequence[str]) -> dict[str, Any]:
    """Return the values of the flags of `define_fields`, as the fields take them."""
    found = {name: value_of(values, name) for name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()} | (
        {"crop": parse_crop(found["crop"])} if "crop" in found else {}
    )


def help_of(name: str) -> str:
    """Return what a field of `DataConfig` says in `--help`: a flag of the same name says the same."""
    return next(field.metadata["help"] for field in dataclasses.fields(DataConfig) if field.name == name)


def parse_crop(text: str) -> int | None:
    """Return the value of `--crop`: pixels, or None for none."""
    if text == "none":
        return None
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"--crop={text}: give a number of pixels, or none")
    return int(text)
