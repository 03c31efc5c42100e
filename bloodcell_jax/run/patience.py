"""What the evaluations of a stage decide: that its learning rate is lowered, or that the run ends early."""

import dataclasses
from typing import Any

import numpy as np

from bloodcell_jax.evaluate.metrics import ranking_of
from bloodcell_jax.run.run import Run
from bloodcell_jax.train.plateaus import evaluations_since_best, plateau_scale, with_rate_scale
from bloodcell_jax.train.stages import TrainingStage, stage_of_step
from bloodcell_jax.train.state import TrainState


class Patience:
    """Follows `train.best_metric` through the evaluations of the stage that runs.

    All that is decided is a function of these values, which a checkpoint's record keeps; so a resumed run decides as
    an undisturbed one.

    Attributes:
      values: of the metric in this stage, one for each evaluation.
    """

    def __init__(self, run: Run, values: list[float | None]):
        self._run, self._ranking = run, ranking_of(run.config.train.best_metric)
        self.values = list(values)

    def begin_stage(self) -> None:
        """Forget the evaluations: another stage starts from another place."""
        self.values = []

    def add(self, val: dict[str, float | None]) -> None:
        """Take in the metrics of an evaluation."""
        self.values.append(val[self._ranking.metric])

    def ends_run(self, step: int) -> bool:
        """Return whether the run ends after `step` finished steps, before its last one; only its last stage ends so."""
        limit, stages = self._run.config.train.early_stop, self._run.stages
        return limit is not None and stage_of_step(stages, step) is stages[-1] and self._waited >= limit

    def lower_rate(self, stage: TrainingStage, state: TrainState) -> tuple[TrainState, str]:
        """Return the state with the learning rate that the evaluations ask for, and a line on it if it is lowered."""
        config = stage.config.optimizer
        if config.schedule != "plateau" or not self.values:
            return state, ""
        scale = plateau_scale(config, self._since_best(self.values))
        before = plateau_scale(config, self._since_best(self.values[:-1]))
        placed = self._run.parallel.place_state(np.float32(scale))
        state = dataclasses.replace(state, opt_state=with_rate_scale(state.opt_state, placed))
        return state, f"{self}: the learning rate is {scale:.3g} of its peak now" if scale < before else ""

    def __str__(self) -> str:
        return f"{self._ranking.metric} did not become better in {self._waited} evaluations"

    @property
    def _waited(self) -> int:
        return self._since_best(self.values)[-1] if self.values else 0

    def _since_best(self, values: list[Any]) -> list[int]:
        return evaluations_since_best(values, higher_is_better=self._ranking.higher_is_better)
