"""The corrupted test images: frozen, so that every model is asked about the same ones."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from bloodcell_jax.augment.corruptions.chains import chain
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.download import file_hash
from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.robustness.corrupted import changes_of
from bloodcell_jax.evaluate.robustness.suites import SUITES, Corruption, Suite
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import read_json, read_json_if_present, write_json
from bloodcell_jax.workdir.value_shapes import INDICES, check

_LEVELS = SUITES["chains"].corruptions[0].severities


def one_chain(key: jax.Array, image: jax.Array) -> jax.Array:
    """Send an image through one chain of distortions, of a severity of the suite `chains` that it draws itself.

    Args:
      key: random key of this image.
      image: [h, w, 3] with h = w, in [0, 1].
    """
    level_key, chain_key = jax.random.split(key)
    links, strength = jnp.asarray(_LEVELS)[jax.random.randint(level_key, (), 0, len(_LEVELS))]
    return chain(chain_key, image, links, strength)


# One corruption for each image, as in the hidden test of the report's competition. Its numbers never change.
ONE_CHAIN = Suite("one-chain", version=1, seed=0, corruptions=(Corruption("chain", one_chain, ((),)),))


def corrupted_answers(
    path: Path,
    run: Workdir,
    suite: Suite,
    dataset: Dataset,
    indices: np.ndarray,
    *,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Return the class that a run's model answers to each corrupted image, int [n, passes]; kept in a file.

    Args:
      path: the file, which is read if it holds the answers of this model already.
      run: a finished run.
      suite: what corrupts the images.
      dataset, indices: the images, n of them.
      show: is told how many of all corrupted images are done.

    Raises:
      DataError: the file is damaged, or a probability is not finite.
    """
    evaluation = run.evaluation("test")
    # The answers to images as they are tell one model from another of the same step.
    asked = {"suite": suite.name, "version": suite.version, "n": len(indices), "passes": suite.passes}
    asked |= {"step": read_json(evaluation.metrics)["step"], "model": file_hash(evaluation.predictions, "sha256")}
    kept = read_json_if_present(path)
    if isinstance(kept, dict) and {name: kept.get(name) for name in asked} == asked:
        check(kept, {"predicted": [INDICES]}, path)
        predicted = kept["predicted"]
        if [len(row) for row in predicted] != [suite.passes] * len(indices):
            raise DataError(f"{path}: its answers are not one for each corrupted image; delete it and run again")
        return np.array(predicted, int)
    classifier = Classifier.from_workdir(run.path)
    changes = [change for *_, change in changes_of(suite, classifier.parallel)]
    predicted = classifier.predict_changed(dataset.images, indices, changes, show=show)
    write_json(path, asked | {"predicted": predicted.tolist()})
    return predicted
