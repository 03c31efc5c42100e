"""What a verb is, and flags that several verbs share."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags

from bloodcell_jax.config import DataConfig
from bloodcell_jax.errors import UsageError


@dataclass(frozen=True)
class Verb:
    """One verb.

    Attributes:
      summary: what it does, in the overview and above its help.
      usage: examples.
      define: defines its flags.
      run: takes the flags and, if `has_config`, the configuration.
      has_config: it takes `--config`.
      has_source: it takes a data source, so its help lists the kinds.
    """

    summary: str
    usage: str
    define: Callable[[flags.FlagValues], None]
    run: Callable[..., None]
    has_config: bool = False
    has_source: bool = False


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
    return Path(required(values, name)).expanduser()


def define_skip_bad(values: flags.FlagValues) -> None:
    """Define `--skip_bad`."""
    flags.DEFINE_bool("skip_bad", False, help_of("skip_bad").partition(";")[0], flag_values=values)


def define_source(values: flags.FlagValues) -> None:
    """Define the flags of a verb that reads a data source without a configuration: fields of `DataConfig`."""
    flags.DEFINE_string("source", None, help_of("source"), flag_values=values)
    flags.DEFINE_string("data_dir", None, help_of("data_dir"), flag_values=values)
    flags.DEFINE_integer(
        "image_size", DataConfig().image_size, help_of("image_size"), lower_bound=16, flag_values=values
    )
    flags.DEFINE_string("crop", str(DataConfig().crop), help_of("crop"), flag_values=values)
    flags.DEFINE_list("class_names", [], help_of("class_names"), flag_values=values)
    define_class_tree(values)
    define_skip_bad(values)


def define_class_tree(values: flags.FlagValues) -> None:
    """Define the flags that say how a tree of class folders is read."""
    for name in ("include", "exclude", "split_folders"):
        flags.DEFINE_string(name, None, help_of(name), flag_values=values)
    flags.DEFINE_integer("class_level", None, help_of("class_level"), lower_bound=1, flag_values=values)


def class_tree(values: flags.FlagValues) -> dict[str, Any]:
    """Return the fields of `DataConfig` that the flags of `define_class_tree` say."""
    return {name: value_of(values, name) for name in ("include", "exclude", "class_level", "split_folders")}


def data_config(values: flags.FlagValues) -> DataConfig:
    """Return the configuration that the flags of `define_source` say."""
    return DataConfig(
        source=required(values, "source"),
        data_dir=value_of(values, "data_dir"),
        image_size=value_of(values, "image_size"),
        crop=parse_crop(value_of(values, "crop")),
        class_names=tuple(value_of(values, "class_names")),
        skip_bad=value_of(values, "skip_bad"),
        **class_tree(values),
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
