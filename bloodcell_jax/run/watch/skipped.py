"""The steps that the guard skipped, as the host learns of them: late, and without a step that waits for it."""

import math
from typing import Any, NamedTuple

import jax

from bloodcell_jax.train.step import Metrics

_READ = ("skipped_steps", "bad_steps", "train/loss", "norm/gradient", "norm/parameter")


class SkippedStep(NamedTuple):
    """A step whose update was not made.

    Attributes:
      step: its number, counted from 1.
      reason: `parameters`, `loss` or `gradient`, the first that was not finite; or `spike`.
      loss: of its batch.
      in_a_row: how many steps were skipped in a row, with this one.
    """

    step: int
    reason: str
    loss: float
    in_a_row: int

    @property
    def why(self) -> str:
        """The reason as a part of a sentence."""
        if self.reason == "spike":
            return f"the loss of {self.loss:.4g} is a spike"
        return f"the {self.reason} {'are' if self.reason == 'parameters' else 'is'} not finite"


class SkippedSteps:
    """Finds the skipped steps among those that have run.

    Attributes:
      total: how many the run has skipped, up to the step that was looked at last.
    """

    def __init__(self, total: int):
        self.total = total
        self._unseen: list[tuple[int, Metrics]] = []

    def note(self, step: int, metrics: Metrics) -> None:
        """Keep what a step says of itself, on the devices."""
        self._unseen.append((step, {name: metrics[name] for name in _READ}))

    def look(self, step: int) -> list[SkippedStep]:
        """Return the skipped steps among those up to `step` that were not looked at before; waits for `step` alone."""
        seen = [item for item in self._unseen if item[0] <= step]
        self._unseen = self._unseen[len(seen) :]
        if not seen or jax.device_get(seen[-1][1]["skipped_steps"]).item() == self.total:
            return []
        found = []
        for number, metrics in seen:
            values = {name: value.item() for name, value in jax.device_get(metrics).items()}
            if values["skipped_steps"] > self.total:
                self.total = values["skipped_steps"]
                found.append(SkippedStep(number, _reason(values), values["train/loss"], values["bad_steps"]))
        return found


def _reason(values: dict[str, Any]) -> str:
    names = {"parameters": "norm/parameter", "loss": "train/loss", "gradient": "norm/gradient"}
    return next((reason for reason, name in names.items() if not math.isfinite(values[name])), "spike")
