"""What every export begins with: the parameters of a trained model and all that is known of it."""

import contextlib
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from bloodcell_jax.config import Config
from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.models.network import Network, leaves_by_path
from bloodcell_jax.models.registry import build_model
from bloodcell_jax.run.finished_model import model_info, model_record, start_info
from bloodcell_jax.weights.info import WeightsInfo
from bloodcell_jax.weights.model_file import ModelRecord, read_model_info
from bloodcell_jax.workdir.checkpoints import Checkpoints


@dataclass(frozen=True)
class TrainedModel:
    """A trained model.

    Attributes:
      weights: the parameters by their paths, float32, as `predict` uses them.
      record: its configuration, step, metrics and calibration.
      info: the license and the origin of its weights.
    """

    weights: dict[str, np.ndarray]
    record: ModelRecord
    info: WeightsInfo

    @property
    def config(self) -> Config:
        """The part of the run's configuration that concerns the network and its images."""
        return self.record.config

    @property
    def network(self) -> Network:
        """The network, a Linen module."""
        return build_model(self.config.model)

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the probabilities."""
        return self.config.data.class_names

    @property
    def temperature(self) -> float:
        """By which `predict` divides the logits; 1: no calibration is known."""
        return 1.0 if self.record.calibration is None else self.record.calibration.temperature


def trained_model(classifier: Classifier) -> TrainedModel:
    """Return the model of a classifier, from the workdir of a run or from the file of its model.

    Raises:
      DataError: a file of the run or of the model cannot be read.
    """
    weights = leaves_by_path(jax.tree.map(np.asarray, jax.device_get(classifier.params)))
    if classifier.file is not None:
        record, info = read_model_info(classifier.file)
        if info is None:
            raise DataError(f"{classifier.file}: does not say where its weights come from; write it again by convert")
        return TrainedModel(weights, record, info)
    run, config = classifier.run, classifier.config
    with contextlib.closing(Checkpoints(run.checkpoints, read_only=True)) as checkpoints:
        metrics = checkpoints.folders.record(classifier.step)["metrics"]
    facts: dict[str, Any] = {"step": classifier.step, "metrics": metrics, "calibration": classifier.calibration}
    return TrainedModel(weights, model_record(run, config, **facts), model_info(config, start_info(run)))
