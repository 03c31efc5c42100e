"""Evaluation inside a run: on the images that training placed, with the parameters that a user would take."""

from collections.abc import Callable

import numpy as np

from bloodcell_jax.evaluate.evaluator import Evaluator
from bloodcell_jax.evaluate.metrics import quick_metrics
from bloodcell_jax.models.network import Params
from bloodcell_jax.run.inputs import RunInputs
from bloodcell_jax.run.run import Run
from bloodcell_jax.train.state import TrainState


class RunEvaluator:
    """Class probabilities of the splits of a run."""

    def __init__(self, run: Run, inputs: RunInputs):
        self._run, self._inputs = run, inputs
        self._evaluator = Evaluator(
            run.model,
            mean=run.config.model.mean,
            std=run.config.model.std,
            batch_size=run.config.evaluate.batch_size,
            parallel=run.parallel,
        )

    def predict(self, params: Params, split: str, *, before_batch: Callable[[], None] = lambda: None) -> np.ndarray:
        """Return the probabilities [n, classes] of a split, see `Evaluator.predict`."""
        indices = self._run.splits[split]
        return self._evaluator.predict(params, self._inputs.images, indices, before_batch=before_batch)

    def val_metrics(self, state: TrainState, *, before_batch: Callable[[], None]) -> dict[str, float | None]:
        """Return what training logs of val: loss, accuracy and macro F1 as `val/...`."""
        params = self._run.parallel.replicate(self._run.parallel.global_view(state.evaluated_params))
        probabilities = self.predict(params, "val", before_batch=before_batch)
        metrics = quick_metrics(self._run.dataset.labels[self._run.splits["val"]], probabilities)
        return {f"val/{name}": value for name, value in metrics.items()}
