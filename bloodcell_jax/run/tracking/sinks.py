"""What a sink of metrics is, and which there are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bloodcell_jax.config import Config
from bloodcell_jax.errors import UsageError
from bloodcell_jax.extras import check_extra
from bloodcell_jax.run.tracking.mlflow_run import open_mlflow
from bloodcell_jax.run.tracking.tensorboard import open_tensorboard
from bloodcell_jax.run.tracking.wandb_run import open_wandb
from bloodcell_jax.workdir import Workdir


class Sink(Protocol):
    """A copy of the metrics, in another program's place."""

    def write(self, lines: Sequence[dict[str, Any]]) -> None:
        """Log lines of `metrics.jsonl`, in order of their steps; values that the sink has already are left out."""
        ...

    def close(self, *, finished: bool) -> None:
        """End the log of this process; `finished`: the run is done, else the same command will go on with it."""
        ...


@dataclass(frozen=True)
class SinkKind:
    """One kind of sink.

    Attributes:
      open: takes the workdir, the configuration, and the step from which the run goes on.
      package: without which it cannot be opened, of an extra of the sink's name; None: the library requires it.
      hides_repeated: a resumed run may log a step again, and the new value counts.
      advice: what to do if it cannot be reached.
    """

    open: Callable[[Workdir, Config, int], Sink]
    package: str | None = None
    hides_repeated: bool = False
    advice: str = ""


SINKS = {
    "tensorboard": SinkKind(open_tensorboard, hides_repeated=True),
    "wandb": SinkKind(
        open_wandb, "wandb", advice="run wandb login or set WANDB_API_KEY, or log to files by WANDB_MODE=offline"
    ),
    "mlflow": SinkKind(
        open_mlflow, "mlflow", advice="name a server that answers by MLFLOW_TRACKING_URI, as in http://127.0.0.1:5000"
    ),
}
DEFAULT_SINKS = ("tensorboard",)


def check_sinks(names: Sequence[str]) -> None:
    """Check the names of sinks, before anything is read.

    Raises:
      UsageError: there is no such sink, or its package is not installed.
    """
    for name in names:
        if name not in SINKS:
            raise UsageError(f"--log_to={name}: must be some of {', '.join(SINKS)}")
        package = SINKS[name].package
        if package is not None:
            check_extra(f"--log_to={name}", package, name, otherwise=f"leave {name} out")
