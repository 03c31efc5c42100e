"""What trackers are told of a run, and the ids by which they know it: `tracking.json` of the workdir."""

from collections.abc import Mapping
from typing import Any

from bloodcell_jax.config import Config, leaves
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import read_json_if_present, write_json
from bloodcell_jax.workdir.value_shapes import TEXT, Each, check

# The project or experiment, unless the environment names another.
PROJECT = "bloodcell_jax"


def numbers_of(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line of `metrics.jsonl`: not its step, not a name, and nothing that was not finite."""
    return {name: value for name, value in line.items() if isinstance(value, int | float) and name != "step"}


def name_of(workdir: Workdir) -> str:
    """Return the name of a run for people: that of its folder."""
    return workdir.path.absolute().name


def settings_of(config: Config) -> dict[str, Any]:
    """Return every field of a configuration by its path, as in `stages.0.name`. No field holds a secret."""
    return {path.replace("[", ".").replace("]", ""): value for path, _, value in leaves(config)}


def read_tracked_id(workdir: Workdir, tracker: str) -> str | None:
    """Return the id by which a tracker knows a run; None: it knows none.

    Raises:
      DataError: the file is none of ours.
    """
    return _read(workdir).get(tracker)


def write_tracked_id(workdir: Workdir, tracker: str, run_id: str) -> None:
    """Write down the id for the processes that go on with the run.

    Raises:
      MachineError: it cannot be written.
    """
    write_json(workdir.tracking, _read(workdir) | {tracker: run_id})


def _read(workdir: Workdir) -> dict[str, str]:
    ids = read_json_if_present(workdir.tracking)
    if ids is None:
        return {}
    check(ids, Each(value=TEXT), workdir.tracking, advice="delete it to log to new runs")
    return ids
