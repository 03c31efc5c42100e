"""Flags that are fields of `DataConfig`: they have its names, defaults and help."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import flags

from bloodcell_jax.cli.verb import required, value_of
from bloodcell_jax.config import DataConfig, from_text
from bloodcell_jax.config.data import SCALE
from bloodcell_jax.config.validation import check_class_names, check_geometry
from bloodcell_jax.errors import UsageError

# Fields of `DataConfig` that say how the files of any source are found; those of geometry belong to the model.
_MANIFEST = ("columns", "root", "file_pattern")
_FINDING = (*_MANIFEST, "include", "exclude", "class_level", "split_folders", "group_regex", "skip_bad")
_SOURCE = ("data_dir", "image_size", *SCALE, "class_names", *_FINDING)
_FIELDS = {field.name: field for field in dataclasses.fields(DataConfig)}


def define_source(values: flags.FlagValues) -> None:
    """Define the flags of a verb that reads a data source without a configuration: fields of `DataConfig`."""
    define_fields(values, ("source", *_SOURCE))


def data_config(values: flags.FlagValues) -> DataConfig:
    """Return the configuration that the flags of `define_source` say."""
    config = DataConfig(source=required(values, "source"), **fields_of(values, _SOURCE))
    check_class_names(config.class_names, "--")
    check_geometry(config, "--")
    return config


def define_scale(values: flags.FlagValues) -> None:
    """Define the flags that look at another part of files than the model was trained on; unset: the same."""
    for name in SCALE:
        flags.DEFINE_string(name, None, f"{help_of(name)} (unset: as in training)", flag_values=values)


def check_no_column(values: flags.FlagValues) -> None:
    """Check that the scale of files is a number, in a verb that reads no manifest.

    Raises:
      UsageError: it is the name of a column, which no file here has.
    """
    text = value_of(values, "microns_per_pixel")
    if text is not None and isinstance(_as_field("microns_per_pixel", text), str):
        raise UsageError(f"--microns_per_pixel={text}: give a number, or none; columns belong to manifests")


def with_scale(values: flags.FlagValues, config: DataConfig) -> DataConfig:
    """Return a model's configuration of the data with what the flags of `define_scale` say."""
    given = {name: text for name in SCALE if (text := value_of(values, name)) is not None}
    changed = dataclasses.replace(config, **{name: _as_field(name, text) for name, text in given.items()})
    check_geometry(changed, "--")
    return changed


def define_finding(values: flags.FlagValues) -> None:
    """Define the flags that say which files of a source are read, and what their folders mean."""
    define_fields(values, _FINDING)


def finding(values: flags.FlagValues) -> dict[str, Any]:
    """Return the fields of `DataConfig` that the flags of `define_finding` say."""
    return fields_of(values, _FINDING)


def define_fields(values: flags.FlagValues, names: Sequence[str]) -> None:
    """Define a flag for each of these fields of `DataConfig`, with its default and its help."""
    for name in names:
        field = _FIELDS[name]
        default, text = getattr(DataConfig, name), field.metadata["help"]
        if field.type is bool:
            flags.DEFINE_bool(name, default, text, flag_values=values)
        elif field.type in (int, int | None):
            flags.DEFINE_integer(name, default, text, lower_bound=field.metadata["minimum"], flag_values=values)
        elif field.type == tuple[str, ...]:
            flags.DEFINE_list(name, list(default), text, flag_values=values)
        else:
            flags.DEFINE_string(name, default, text, flag_values=values)


def fields_of(values: flags.FlagValues, names: Sequence[str]) -> dict[str, Any]:
    """Return the values of the flags of `define_fields`, as the fields take them."""
    return {name: _as_field(name, value_of(values, name)) for name in names}


def _as_field(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return from_text(_FIELDS[name].type, value) if isinstance(value, str) and name in SCALE else value


def help_of(name: str) -> str:
    """Return what a field of `DataConfig` says in `--help`: a flag of the same name says the same."""
    return _FIELDS[name].metadata["help"]
