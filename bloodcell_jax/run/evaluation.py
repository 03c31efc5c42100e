"""Evaluation inside a run: on the images that training placed, with the parameters that a user would take."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from bloodcell_jax.evaluate.answers import Answers, answers_to
from bloodcell_jax.evaluate.evaluator import Evaluator, Outputs
from bloodcell_jax.evaluate.explain.embedding_map import EmbeddingSample
from bloodcell_jax.evaluate.explain.explained_split import Explanations, explain_split
from bloodcell_jax.evaluate.explain.training_neighbors import TrainingImages
from bloodcell_jax.evaluate.fit_calibration import fit_calibration
from bloodcell_jax.evaluate.metrics import quick_metrics
from bloodcell_jax.evaluate.out_of_distribution import reference_of
from bloodcell_jax.models.network import Params
from bloodcell_jax.run.inputs import RunInputs
from bloodcell_jax.run.run import Run
from bloodcell_jax.train.state import TrainState
from bloodcell_jax.weights.calibration import Calibration

# Is told the step and the metrics of val, such as `val/accuracy`, after each evaluation, once the state is being saved.
# What it raises ends the run, which the same command resumes from there.
OnEvaluation = Callable[[int, Mapping[str, float | None]], None]


class RunEvaluator:
    """What networks say of the images of a run."""

    def __init__(self, run: Run, inputs: RunInputs):
        self._run, self._inputs = run, inputs
        self._evaluator = Evaluator(
            run.model,
            mean=run.config.model.mean,
            std=run.config.model.std,
            batch_size=run.config.evaluate.batch_size,
            parallel=run.parallel,
        )

    def outputs(self, params: Params, indices: np.ndarray, *, before_batch: Callable[[], None]) -> Iterator[Outputs]:
        """Yield the outputs of some examples of the run, see `Evaluator.outputs`."""
        return self._evaluator.outputs(params, self._inputs.images, indices, before_batch=before_batch)

    def predict(self, params: Params, split: str, *, before_batch: Callable[[], None] = lambda: None) -> np.ndarray:
        """Return the probabilities [n, classes] of a split at temperature 1, see `Evaluator.predict`."""
        indices = self._run.splits[split]
        return self._evaluator.predict(params, self._inputs.images, indices, before_batch=before_batch)

    def calibrate(self, params: Params, *, before_batch: Callable[[], None]) -> Calibration:
        """Return what val says of parameters; every process of the run gives its part and gets the whole."""
        run = self._run
        return fit_calibration(
            self.outputs(params, self._reference_examples(), before_batch=before_batch),
            self.outputs(params, run.splits["val"], before_batch=before_batch),
            run.dataset.labels[run.splits["val"]],
        )

    def evaluate(
        self, params: Params, split: str, calibration: Calibration, *, before_batch: Callable[[], None]
    ) -> tuple[Answers, Explanations]:
        """Return the answers to a split and what explains them; every process gives its part and gets the whole."""
        run, indices = self._run, self._run.splits[split]
        sample = EmbeddingSample(len(indices))
        outputs = sample.watch(self.outputs(params, indices, before_batch=before_batch))
        answers = answers_to(outputs, calibration, len(run.dataset.class_names))
        explanations = explain_split(
            partial(self._evaluator.outputs_and_grad_cam, params, before_batch=before_batch),
            run.dataset,
            indices,
            answers.probabilities,
            sample,
            lambda: TrainingImages(run.dataset, self._reference_examples(), calibration.reference.features),
            count=run.config.evaluate.explain,
            batch_size=self._evaluator.batch_size,
        )
        return answers, explanations

    def _reference_examples(self) -> np.ndarray:
        return reference_of(self._run.sampler, self._run.dataset.labels, seed=self._run.config.seed)

    def val_metrics(self, state: TrainState, *, before_batch: Callable[[], None]) -> dict[str, float | None]:
        """Return what training logs of val: loss, accuracy and macro F1 as `val/...`."""
        params = self._run.parallel.replicate(self._run.parallel.global_view(state.evaluated_params))
        probabilities = self.predict(params, "val", before_batch=before_batch)
        metrics = quick_metrics(self._run.dataset.labels[self._run.splits["val"]], probabilities)
        return {f"val/{name}": value for name, value in metrics.items()}
