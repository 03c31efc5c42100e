"""The answers of a classifier to the images of a split as suites corrupt them."""

from collections.abc import Callable
from typing import Any

from bloodcell_jax.evaluate.answers import Answers
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.examples import Examples
from bloodcell_jax.evaluate.robustness.corrupted import changes_of
from bloodcell_jax.evaluate.robustness.scores import suite_scores
from bloodcell_jax.evaluate.robustness.suites import Suite
from bloodcell_jax.workdir.json_files import write_json
from bloodcell_jax.workdir.layout import EvaluationFolder


def evaluate_suites(
    classifier: Classifier,
    examples: Examples,
    answers: Answers,
    suites: list[Suite],
    folder: EvaluationFolder,
    *,
    origin: dict[str, Any],
    show: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, Any]]:
    """Score a classifier under suites of corruptions, write a file for each, and return their contents by name.

    The images are read once; all their corruptions are made on the devices.

    Args:
      examples: what is corrupted.
      answers: of the model, to each of them as it is.
      folder: of the split, which `write_split` has written.
      origin: where the examples are from.
      show: is told how many of all corrupted images are done.

    Raises:
      DataError: a probability is not finite.
      MachineError: a file cannot be written.
    """
    if not suites:
        return {}
    passes = [change for suite in suites for *_, change in changes_of(suite, classifier.parallel)]
    clean = answers.probabilities.argmax(axis=1)
    dataset, indices = examples.dataset, examples.indices
    predicted = classifier.predict_changed(dataset.images, indices, passes, show=show)
    results, first = {}, 0
    for suite in suites:
        corrupted = predicted[:, first : first + suite.passes]
        first += suite.passes
        about = {"name": suite.name, "version": suite.version, "seed": suite.seed, "step": classifier.step}
        about |= origin | {"n": len(indices), "image_size": dataset.images.shape[1]}
        scores = suite_scores(suite, dataset.labels[indices], clean, corrupted, len(dataset.class_names))
        results[suite.name] = {"suite": about} | scores
        write_json(folder.suite(suite.name), results[suite.name])
    return results
