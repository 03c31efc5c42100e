"""A trained model, ready to classify pictures."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from bloodcell_jax.config import Config
from bloodcell_jax.data.pictures import resize_arrays
from bloodcell_jax.data.stored_pictures import StoredPictures
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.evaluator import Evaluator
from bloodcell_jax.train.checkpoints import Checkpoints, restore_params
from bloodcell_jax.train.parallel import create_parallel
from bloodcell_jax.train.setup import build_model, param_shapes
from bloodcell_jax.workdir import read_config


class Classifier:
    """Class probabilities from a run's configuration and one of its checkpoints.

    Attributes:
      config: the run's resolved configuration.
      class_names: in the order of the probabilities' columns.
      step: of the checkpoint.
      workdir: the run's folder.
    """

    def __init__(self, config: Config, params: Any, *, step: int, workdir: Path):
        self.config, self.step, self.workdir = config, step, workdir
        self.class_names = config.data.class_names
        self._params = params
        self._evaluator = Evaluator(
            build_model(config.model),
            mean=config.model.mean,
            std=config.model.std,
            batch_size=config.evaluate.batch_size,
            parallel=create_parallel("jit", jax.device_count()),
        )

    @classmethod
    def from_workdir(cls, workdir: str | Path, *, checkpoint: str = "best") -> "Classifier":
        """Load the model of a run.

        Args:
          workdir: the run's folder.
          checkpoint: `best` by `train.best_metric`, `last`, or a step.

        Raises:
          UsageError: there is no such checkpoint; the ones there are named.
          DataError: the workdir holds no run, or a file of it cannot be read.
        """
        workdir = Path(workdir)
        config = read_config(workdir)
        folder = workdir / "checkpoints"
        if not folder.is_dir():
            raise DataError(f"{folder}: no checkpoint yet; train first, or wait for the first one")
        sharding = create_parallel("jit", jax.device_count()).replicated
        checkpoints = Checkpoints(folder, read_only=True)
        try:
            step = _choose(checkpoints, checkpoint, config.train.best_metric, folder)
            params = restore_params(checkpoints, step, param_shapes(config), config.train.ema_decay, sharding)
        finally:
            checkpoints.close()
        return cls(config, params, step=step, workdir=workdir)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the probabilities [n, classes] of uint8 pictures [n, h, w, 3] of any size, resized as in training.

        Raises:
          UsageError: the pictures have another shape or dtype.
        """
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise UsageError(f"images are {images.dtype} {list(images.shape)}; expected uint8 [n, height, width, 3]")
        return self.predict_examples(resize_arrays(images, self.config.data.image_size), np.arange(len(images)))

    def predict_examples(self, images: np.ndarray | StoredPictures, indices: np.ndarray) -> np.ndarray:
        """Return the probabilities [n, classes] of those at `indices` of pictures of the model's size.

        They may be on the disk: they are read as they are needed.
        """
        if len(indices) == 0:
            return np.zeros((0, len(self.class_names)))
        return self._evaluator.predict(self._params, images, indices)


def _choose(checkpoints: Checkpoints, wanted: str, metric: str, folder: Path) -> int:
    steps = checkpoints.steps()
    if not steps:
        raise DataError(f"{folder}: holds no finished checkpoint; train first, or wait for the first one")
    if wanted == "last":
        return steps[-1]
    if wanted == "best":
        best = checkpoints.best(metric)
        return best[0] if best else steps[-1]
    if not wanted.isdecimal() or int(wanted) not in steps:
        raise UsageError(f"--checkpoint={wanted}: there are best, last, {', '.join(map(str, steps))}")
    return int(wanted)
