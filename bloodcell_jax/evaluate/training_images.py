"""The images that a run's calibration keeps the features of, from the run's own source."""

import logging

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.sampling import sampler_of
from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.examples import load_examples
from bloodcell_jax.evaluate.explain.training_neighbors import TrainingImages
from bloodcell_jax.evaluate.out_of_distribution import reference_of

logger = logging.getLogger(__name__)


def training_images(classifier: Classifier, dataset: Dataset | None = None) -> TrainingImages:
    """Return the images that the calibration keeps the features of.

    Args:
      classifier: the model.
      dataset: the run's own; None: it is read.

    Raises:
      UsageError, DataError, MachineError: they are not at hand; says why.
    """
    if classifier.workdir is None:
        raise DataError("the file of a model does not hold the images of its run; give --workdir instead of --model")
    if classifier.calibration is None:
        raise DataError("this checkpoint has no calibration, which keeps the features of training images")
    if dataset is None:
        logger.info("%s: reading it for the nearest training images", classifier.config.data.source)
        dataset = load_examples(classifier, None, {})
    sampler = sampler_of(classifier.config, dataset, classifier.run.read_splits()["train"])
    indices = reference_of(sampler, dataset.labels, seed=classifier.config.seed)
    return TrainingImages(dataset, indices, classifier.calibration.reference.features)
