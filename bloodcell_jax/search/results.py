"""What the trials of a study say: the content of `sweep.json`, and a table."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bloodcell_jax.config import Config, to_dict
from bloodcell_jax.names import spreadsheet_cell
from bloodcell_jax.search.search_space import Dimension
from bloodcell_jax.search.trials import REASON, SharedStudy
from bloodcell_jax.workdir.output_files import csv_writer, open_text

if TYPE_CHECKING:
    import optuna

# With fewer finished trials, an importance says more about the draw than about the field.
_LEAST_FOR_IMPORTANCE = 10


def results_of(shared: SharedStudy, config: Config, search: Sequence[Dimension]) -> dict[str, Any]:
    """Return the content of `sweep.json`."""
    study = shared.study
    trials = [_trial(trial, shared.folder_of(trial)) for trial in study.get_trials(deepcopy=False)]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    higher = study.direction.name == "MAXIMIZE"
    best = max(complete, key=lambda trial: trial["value"] if higher else -trial["value"], default=None)
    return {
        "metric": config.train.best_metric,
        "higher_is_better": higher,
        "search": [{"path": d.path, "kind": d.kind, "text": d.text} for d in search],
        "best": best and best["number"],
        "importances": _importances(study, complete),
        "trials": trials,
        "config": to_dict(config),
    }


def _trial(trial: "optuna.trial.FrozenTrial", folder: Path | None) -> dict[str, Any]:
    reported = {
        str(number): value if math.isfinite(value) else None for number, value in trial.intermediate_values.items()
    }
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value,
        "values": dict(trial.params),
        "evaluations": reported,
        "workdir": None if folder is None else str(folder),
        "reason": trial.user_attrs.get(REASON),
    }


def _importances(study: "optuna.Study", complete: list[dict[str, Any]]) -> dict[str, float] | None:
    """Return the share of each field in the variance of the values; None: too few trials, or equal ones."""
    if len(complete) < _LEAST_FOR_IMPORTANCE or len({trial["value"] for trial in complete}) < 2:
        return None
    import optuna

    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def write_table(path: Path, content: dict[str, Any]) -> None:
    """Write a row for each trial: `trial,state,<metric>,<one column per field>`.

    Raises:
      MachineError: the file cannot be written.
    """
    paths = [field["path"] for field in content["search"]]
    with open_text(path) as file:
        writer = csv_writer(file)
        writer.writerow(["trial", "state", content["metric"], *paths])
        for trial in content["trials"]:
            value = "" if trial["value"] is None else f"{trial['value']:.6f}"
            cells = [spreadsheet_cell(str(trial["values"].get(path, ""))) for path in paths]
            writer.writerow([trial["number"], trial["state"], value, *cells])
