"""What a run may change to fit, tried by compiling it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from bloodcell_jax.config import Config
from bloodcell_jax.run.run import Run

# From the one that costs least time to the one that saves most memory.
_CHANGES = (
    {"model.remat": True},
    {"train.shard_state": "optimizer"},
    {"model.remat": True, "train.shard_state": "optimizer"},
    {"model.remat": True, "train.shard_state": "all"},
)


def runs_that_need_less(
    run: Run, config: Config, create: Callable[[Config], Run]
) -> Iterator[tuple[dict[str, Any], Run]]:
    """Yield changes of fields of a configuration, and the run with them.

    Args:
      run: the run that does not fit.
      config: what it was created from.
      create: creates a run.
    """
    for changes in _CHANGES:
        if "model.remat" in changes and not hasattr(run.model, "remat"):
            continue
        if "train.shard_state" in changes and run.parallel.mesh.size == 1:
            continue
        if all(_field(config, name) == value for name, value in changes.items()):
            continue
        yield changes, create(_changed(config, changes))


def _field(config: Config, name: str) -> Any:
    part, field = name.split(".")
    return getattr(getattr(config, part), field)


def _changed(config: Config, changes: dict[str, Any]) -> Config:
    for name, value in changes.items():
        part, field = name.split(".")
        config = replace(config, **{part: replace(getattr(config, part), **{field: value})})
    return config
