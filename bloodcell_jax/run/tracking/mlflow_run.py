"""A run of an MLflow server, which takes a value of a metric at a step as often as it is sent."""

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bloodcell_jax.config import Config
from bloodcell_jax.run.tracking.tracked_run import (
    PROJECT,
    name_of,
    numbers_of,
    read_tracked_id,
    settings_of,
    write_tracked_id,
)
from bloodcell_jax.workdir import Workdir

if TYPE_CHECKING:
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports] - an extra

# The server refuses more values in one request, longer parameters, and more of them in one request.
_MOST_VALUES, _LONGEST_SETTING, _MOST_SETTINGS = 1000, 500, 100


def open_mlflow(workdir: Workdir, config: Config, first_step: int) -> "MlflowRun":
    """Create the run, or open the one that an earlier process created. MLflow's variables name server and experiment.

    Raises what MLflow raises if the server refuses or does not answer.
    """
    # By default a server that does not answer is asked 8 times for 120 s each, and the training would stand still.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports] - an extra

    client, run_id = MlflowClient(), read_tracked_id(workdir, "mlflow")
    if run_id is None:
        run_id = _create_run(client, workdir, config)
        write_tracked_id(workdir, "mlflow", run_id)
        return MlflowRun(client, run_id, {})
    names = client.get_run(run_id).data.metrics
    logged = {name: max(metric.step for metric in client.get_metric_history(run_id, name)) for name in names}
    client.update_run(run_id, status="RUNNING")
    return MlflowRun(client, run_id, logged)


def _create_run(client: "MlflowClient", workdir: Workdir, config: Config) -> str:
    from mlflow.entities import Param  # pyright: ignore[reportMissingImports] - an extra

    run = client.create_run(_experiment_id(client), run_name=os.environ.get("MLFLOW_RUN_NAME", name_of(workdir)))
    settings = [Param(name, str(value)[:_LONGEST_SETTING]) for name, value in settings_of(config).items()]
    for start in range(0, len(settings), _MOST_SETTINGS):
        client.log_batch(run.info.run_id, params=settings[start : start + _MOST_SETTINGS])
    return run.info.run_id


def _experiment_id(client: "MlflowClient") -> str:
    if "MLFLOW_EXPERIMENT_ID" in os.environ:
        return os.environ["MLFLOW_EXPERIMENT_ID"]
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    experiment = client.get_experiment_by_name(name)
    return client.create_experiment(name) if experiment is None else experiment.experiment_id


class MlflowRun:
    """The run, and the last step of each metric that it has."""

    def __init__(self, client: "MlflowClient", run_id: str, logged: dict[str, int]):
        self._client, self._run_id, self._logged = client, run_id, logged

    def write(self, lines: Sequence[dict[str, Any]]) -> None:
        """Send the values that the server does not have yet."""
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports] - an extra

        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, line["step"])
            for line in lines
            for name, value in numbers_of(line).items()
            if line["step"] > self._logged.get(name, -1)
        ]
        for start in range(0, len(metrics), _MOST_VALUES):
            sent = metrics[start : start + _MOST_VALUES]
            self._client.log_batch(self._run_id, metrics=sent)
            self._logged |= {metric.key: metric.step for metric in sent}

    def close(self, *, finished: bool) -> None:
        """Tell the server how the process ended."""
        self._client.set_terminated(self._run_id, "FINISHED" if finished else "KILLED")
