"""What a sweep searches: fields of the configuration, each with the values that it may take."""

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ml_collections.config_flags import config_path

from bloodcell_jax.config import Config
from bloodcell_jax.errors import UsageError
from bloodcell_jax.run.create import check_without_data

if TYPE_CHECKING:
    import optuna

# (path, text) -> the value that `--config.PATH=TEXT` gives the field.
ReadField = Callable[[str, str], Any]

_FORMS = "PATH:uniform:LOW:HIGH, PATH:loguniform:LOW:HIGH, PATH:int:LOW:HIGH, PATH:choice:A,B or PATH:choice:[...]"


@dataclass(frozen=True)
class Dimension:
    """A field that is searched.

    Attributes:
      text: as the user wrote it.
      path: of the field, such as `stages[0].optimizer.learning_rate`.
      kind: `uniform`, `loguniform`, `int` or `choice`.
      bounds: the lowest and the highest value; empty for a choice.
      choices: the value of each text that may be chosen; empty for others.
    """

    text: str
    path: str
    kind: str
    bounds: tuple[float, ...] = ()
    choices: dict[str, Any] = field(default_factory=dict)

    def suggest(self, trial: "optuna.trial.Trial") -> Any:
        """Return the value of a trial; a trial that is resumed keeps its own."""
        if self.kind == "choice":
            return self.choices[trial.suggest_categorical(self.path, list(self.choices))]
        low, high = self.bounds
        if self.kind == "int":
            return trial.suggest_int(self.path, int(low), int(high))
        return trial.suggest_float(self.path, low, high, log=self.kind == "loguniform")


def parse_search(texts: Sequence[str], read_field: ReadField) -> list[Dimension]:
    """Return the fields that `--search` flags name.

    Raises:
      UsageError: a flag cannot be read, names no field or one that another flag names, or a value does not suit it.
    """
    if not texts:
        raise UsageError(f"--search: missing; say what is searched: {_FORMS}")
    dimensions = [_dimension(text, read_field) for text in texts]
    paths = [dimension.path for dimension in dimensions]
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(f"--search={path}: stands twice; give each field once")
    return dimensions


def _dimension(text: str, read_field: ReadField) -> Dimension:
    path, kind, values = (*text.split(":", 2), "", "")[:3]
    if kind == "choice":
        choices = {choice: read_field(path, choice) for choice in _choices(text, values)}
        return Dimension(text, path, kind, choices=choices)
    ends = values.split(":")
    if kind not in ("uniform", "loguniform", "int") or len(ends) != 2:
        raise UsageError(f"--search={text}: cannot be read; give {_FORMS}")
    bounds = tuple(read_field(path, end) for end in ends)
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in bounds):
        raise UsageError(f"--search={text}: {path} holds no number; give {path}:choice:A,B")
    whole = all(isinstance(end, int) for end in bounds)
    if whole and kind != "int":
        raise UsageError(f"--search={text}: {path} holds whole numbers; give {path}:int:{values} or {path}:choice:A,B")
    low, high = bounds
    if not (math.isfinite(low) and low < high and math.isfinite(high)) or (kind == "loguniform" and low <= 0):
        above = ", both above 0" if kind == "loguniform" else ""
        raise UsageError(f"--search={text}: give the lower bound first, then the higher one{above}")
    if kind == "int" and not all(float(end).is_integer() for end in bounds):
        raise UsageError(f"--search={text}: give two whole numbers, or {path}:uniform:{values}")
    return Dimension(text, path, kind, bounds=bounds)


def _choices(text: str, values: str) -> list[str]:
    """Return the texts of A,B or of a JSON list, which may hold texts with commas."""
    if values.startswith("["):
        try:
            choices = [item if isinstance(item, str) else json.dumps(item) for item in json.loads(values)]
        except ValueError as error:
            raise UsageError(f'--search={text}: not a JSON list ({error}); give choice:["A","B"]') from error
    else:
        choices = values.split(",")
    if len(choices) < 2 or len(set(choices)) < len(choices) or "" in choices:
        raise UsageError(f"--search={text}: give two or more different choices")
    return choices


def with_values(config: Config, values: dict[str, Any]) -> Config:
    """Return a copy of a configuration in which fields, by path, have other values; all that needs no data is checked.

    Raises:
      UsageError: a value is not legal, or does not fit the devices.
    """
    config = copy.deepcopy(config)
    for path, value in values.items():
        config_path.set_value(path, config, value)
    check_without_data(config)
    return config


# Fields that say which images are val, or what is in the source.
_JUDGES = {
    f"data.{name}"
    for name in (
        *("split_seed", "splits", "folds", "fold", "split_folders", "group_regex", "group_duplicates"),
        *("clean", "include", "exclude", "skip_bad", "class_level", "columns", "root", "file_pattern"),
    )
}


def check_values(config: Config, dimensions: Sequence[Dimension]) -> None:
    """Check the bounds and choices of each field before hours of work; how two fields go together is seen by trial.

    Of whole numbers the second one is checked too: if only multiples are legal, as of a batch, it is none.

    Raises:
      UsageError: one is not legal; names the search and the value.
    """
    for dimension in dimensions:
        if dimension.path in _JUDGES:
            raise UsageError(
                f"--search={dimension.text}: decides which images judge a trial, so the scores of trials would say "
                "nothing of each other; search another field, or use crossval"
            )
        values = list(dimension.bounds or dimension.choices.values())
        if dimension.kind == "int":
            values.append(dimension.bounds[0] + 1)
        for value in values:
            try:
                with_values(config, {dimension.path: value})
            except UsageError as error:
                raise UsageError(f"--search={dimension.text}: {error}") from error
