"""Whether the values of a configuration are legal, each by itself and together."""

import dataclasses
import math
import re
import reprlib
import types
import typing
from typing import Any

from bloodcell_jax.config.data import AUTO, DataConfig
from bloodcell_jax.config.fields import Config, StageConfig
from bloodcell_jax.config.option import leaves
from bloodcell_jax.errors import UsageError


def validate(config: Config) -> None:
    """Check every field's type, choices and bounds, and the rules that join several fields.

    Raises:
      UsageError: names the field, its value and what is legal.
    """
    if not isinstance(config, Config):
        raise UsageError(f"get_config() returned {type(config).__name__}; it must return bloodcell_jax.config.Config")
    for path, f, value in leaves(config):
        _check_value(f"config.{path}", f, value)
    check_geometry(config.data)
    _check_splits(config.data.splits)
    _check_fold(config.data)
    power_range(config.data.sampler_power)
    if config.data.group_regex is not None:
        group_pattern(config.data.group_regex)
    if not config.stages:
        raise UsageError("config.stages: empty; give at least one stage")
    for i, stage in enumerate(config.stages):
        _check_stage(f"config.stages[{i}]", stage, config.data.image_size)
    if config.train.ema_warmup and config.train.ema_decay is None:
        raise UsageError("config.train.ema_warmup=True: there is no average; set config.train.ema_decay, such as 0.999")
    if config.train.ema_decay == 1:
        raise UsageError("config.train.ema_decay=1: the average would stay as it began; give less, such as 0.999")
    train = config.train
    if train.logit_adjustment != "none" and train.loss != "cross_entropy":
        raise UsageError(
            f"config.train.logit_adjustment={train.logit_adjustment}: moves the prior of loss=cross_entropy; with "
            f"config.train.loss={train.loss}, predictions would follow another one. Unset one of them"
        )
    for name in ("mean", "std"):
        value = getattr(config.model, name)
        if value and (len(value) != 3 or (name == "std" and min(value) <= 0)):
            raise UsageError(f"config.model.{name}={value!r}: give three numbers (red, green, blue), std above 0")
    names = config.data.class_names
    check_class_names(names)
    if names and config.model.num_classes not in (None, len(names)):
        raise UsageError(
            f"config.model.num_classes={config.model.num_classes} contradicts the {len(names)} config.data.class_names"
        )


def check_all_read(config: Config) -> None:
    """Check that no option is set which the choice beside it does not read, such as `momentum` with AdamW.

    It is no part of `validate`: a model of such a run, made before this was refused, is as good as any.

    Raises:
      UsageError: names both, and the choices that read it.
    """
    options = list(leaves(config))
    values = {path: value for path, _, value in options}
    for path, f, value in options:
        if f.metadata["read_with"] is None or value == f.default:
            continue
        name, choices = f.metadata["read_with"]
        beside = f"{path.removesuffix(f.name)}{name}"
        if values[beside] not in choices:
            raise UsageError(
                f"config.{path}={value}: is read with {name}={' or '.join(choices)} alone, and config.{beside} is "
                f"{values[beside]}; leave it at {'none' if f.default is None else f.default}"
            )


def _check_value(path: str, f: dataclasses.Field, value: Any) -> None:
    if not _has_type(value, f.type):
        raise UsageError(f"{path}={reprlib.repr(value)}: expected {_type_name(f.type)}")
    if value is None:
        return
    rules = f.metadata
    if rules["choices"] and value not in rules["choices"]:
        raise UsageError(f"{path}={value!r}: must be one of {', '.join(map(str, rules['choices']))}")
    numbers = [item for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, int | float)]
    # A whole number of more than 64 bits is infinite to whoever computes with it.
    if not all(abs(number) < 2**63 if isinstance(number, int) else math.isfinite(number) for number in numbers):
        raise UsageError(f"{path}={reprlib.repr(value)}: must be finite")
    if rules["minimum"] is not None and value < rules["minimum"]:
        raise UsageError(f"{path}={value!r}: must be at least {rules['minimum']}")
    if rules["maximum"] is not None and value > rules["maximum"]:
        raise UsageError(f"{path}={value!r}: must be at most {rules['maximum']}")


def _has_type(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_has_type(value, option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_has_type(item, typing.get_args(kind)[0]) for item in value)
    if typing.get_origin(kind) is list:
        return isinstance(value, list) and all(isinstance(item, typing.get_args(kind)[0]) for item in value)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def _type_name(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        return " or ".join(_type_name(option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return f"a tuple of {_type_name(typing.get_args(kind)[0])}"
    if typing.get_origin(kind) is list:
        return f"a list of {typing.get_args(kind)[0].__name__}"
    names: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        str: "text",
        bool: "true or false",
        type(None): "none",
    }
    return str(names.get(kind, kind.__name__))


def check_class_names(names: tuple[str, ...], prefix: str = "config.data.") -> None:
    """Check that no name stands twice; `prefix` as of `check_geometry`.

    Raises:
      UsageError: one does.
    """
    if len(set(names)) != len(names):
        raise UsageError(f"{prefix}class_names={','.join(names)}: a name stands twice")


def check_geometry(data: DataConfig, prefix: str = "config.data.") -> None:
    """Check the crop, and the scale with it.

    Args:
      data: the options.
      prefix: stands before a field's name in messages.

    Raises:
      UsageError: names the field, its value and what is legal.
    """
    crop, scale = data.crop, data.microns_per_pixel
    pixels = isinstance(crop, int) and crop >= 1
    fraction = isinstance(crop, float) and 0 < crop < 1
    if not (crop is None or crop == AUTO or pixels or fraction):
        raise UsageError(
            f"{prefix}crop={crop}: give a number of pixels, a fraction of the shorter side below 1, auto or none"
        )
    if scale is None:
        return
    if crop is None or fraction:
        raise UsageError(
            f"{prefix}microns_per_pixel={scale}: does not go with crop={'none' if crop is None else crop}, which is no "
            "length on the slide; give the crop in pixels of 0.1 micrometers, or auto"
        )
    if not isinstance(scale, str) and not (math.isfinite(scale) and scale > 0):
        raise UsageError(f"{prefix}microns_per_pixel={scale}: give a number above 0, or the name of a column")


def _check_splits(splits: tuple[float, ...]) -> None:
    if len(splits) != 3 or min(splits) < 0 or abs(sum(splits) - 1) > 1e-6 or min(splits[:2]) == 0:
        raise UsageError(
            f"config.data.splits={splits!r}: give train, val and test fractions that add to 1 (test may be 0)"
        )


def _check_fold(data: DataConfig) -> None:
    if data.folds is None and data.fold:
        raise UsageError(f"config.data.fold={data.fold}: there are no folds; set config.data.folds, such as 5")
    if data.folds is not None and data.fold >= data.folds:
        raise UsageError(f"config.data.fold={data.fold}: config.data.folds={data.folds}; give 0 to {data.folds - 1}")


def power_range(text: str) -> tuple[float, float]:
    """Return q of the first and of the last epoch from `data.sampler_power`, a number or FIRST..LAST.

    Raises:
      UsageError: it is neither, or leaves 0 to 1.
    """
    first, dots, last = text.partition("..")
    try:
        values = float(first), float(last if dots else first)
    except ValueError:
        values = (math.nan, math.nan)
    if not all(0 <= value <= 1 for value in values):
        raise UsageError(f"config.data.sampler_power={text!r}: give a number from 0 to 1, or two as in '1..0'")
    return values


def group_pattern(text: str) -> re.Pattern:
    """Return the compiled `data.group_regex`; the group is its only capture group, or that named `group`.

    Raises:
      UsageError: it is no regular expression, or has no such capture group.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(f"data.group_regex={text}: no regular expression: {error}") from error
    if "group" not in pattern.groupindex and pattern.groups != 1:
        raise UsageError(
            f"data.group_regex={text}: has {pattern.groups} capture groups; give one in parentheses, as in "
            r"UID_(\d+)_, or name one, as in (?P<group>\d+)"
        )
    return pattern


def _check_stage(path: str, stage: StageConfig, image_size: int) -> None:
    if stage.steps is None and not stage.epochs:
        raise UsageError(f"{path}: give epochs or steps")
    if stage.image_size is not None and stage.image_size > image_size:
        raise UsageError(
            f"{path}.image_size={stage.image_size}: larger than the images, which have config.data.image_size="
            f"{image_size}; raise that, or lower this"
        )
    optimizer = stage.optimizer
    if optimizer.clip_norm == 0:
        raise UsageError(
            f"{path}.optimizer.clip_norm=0: nothing would be learned; unset it by none, or give it above 0"
        )
    if optimizer.schedule == "exponential" and not optimizer.final_scale:
        raise UsageError(f"{path}.optimizer.final_scale=0: schedule=exponential never gets there; give it above 0")
