"""A trained model, ready to classify images."""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from bloodcell_jax.config import Config
from bloodcell_jax.data.geometry import Geometry, View, describe, misfit, view_of
from bloodcell_jax.devices.parallel import create_parallel
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.answers import Answers, answers_to
from bloodcell_jax.evaluate.evaluator import Evaluator, Outputs
from bloodcell_jax.evaluate.explain.embedding_map import EmbeddingSample
from bloodcell_jax.evaluate.explain.explained_images import ExplainedImages, explain_images
from bloodcell_jax.evaluate.given_images import GivenImage, to_model_size
from bloodcell_jax.evaluate.image_batches import Images
from bloodcell_jax.evaluate.metrics import check_finite, ranking_of
from bloodcell_jax.evaluate.temperature import softmax
from bloodcell_jax.models.network import Params
from bloodcell_jax.models.registry import build_model, param_shapes
from bloodcell_jax.weights.calibration import Calibration
from bloodcell_jax.weights.model_file import read_model_file, read_model_record
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.checkpoint_folders import CheckpointFolders, Ranking
from bloodcell_jax.workdir.checkpoints import Checkpoints, restore_params

logger = logging.getLogger(__name__)


class Classifier:
    """Class probabilities from a run's configuration and one of its checkpoints, or from the file of its model.

    Attributes:
      config: the run's resolved configuration; from a file, what concerns the network and its images, and defaults.
      class_names: in the order of the probabilities' columns.
      step: step of the checkpoint.
      workdir: the run's folder; None: the model came from a file.
      view: what the model saw of the image files that it was trained on; None: it was trained on arrays.
      calibration: what val said of this checkpoint; None: probabilities are at temperature 1, and nothing is unknown.
    """

    def __init__(
        self,
        config: Config,
        params: Params,
        *,
        step: int,
        workdir: Workdir | None,
        view: View | None = None,
        calibration: Calibration | None = None,
    ):
        self.config, self.step, self.workdir, self.view = config, step, workdir, view
        self.calibration = calibration
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
        run = Workdir(workdir)
        config = run.read_config()
        if not run.checkpoints.is_dir():
            raise DataError(f"{run.checkpoints}: no checkpoint yet; train first, or wait for the first one")
        shapes = param_shapes(build_model(config.model), config.data.image_size)
        sharding = create_parallel("jit", jax.device_count()).replicated
        with contextlib.closing(Checkpoints(run.checkpoints, read_only=True)) as checkpoints:
            step = _choose(checkpoints.folders, checkpoint, ranking_of(config.train.best_metric))
            params = restore_params(checkpoints, step, shapes, config.train.ema_decay, sharding)
        view = run.read_environment()["data"].get("view") if run.environment.exists() else None
        calibration = _calibration_of(run, step)
        return cls(config, params, step=step, workdir=run, view=View(**view) if view else None, calibration=calibration)

    @classmethod
    def from_file(cls, path: str | Path) -> "Classifier":
        """Load the model of a finished run from its `model.safetensors` alone.

        Raises:
          DataError: the file is missing, damaged or no model of a run; names what it lacks.
        """
        params, record = read_model_file(Path(os.path.expanduser(path)))
        params = jax.device_put(params, create_parallel("jit", jax.device_count()).replicated)
        view = View(**record.view) if record.view else None
        if record.calibration is None:
            _say_uncalibrated(path, "written by an earlier version, or from a run whose data were not at hand")
        return cls(record.config, params, step=record.step, workdir=None, view=view, calibration=record.calibration)

    @property
    def run(self) -> Workdir:
        """The run's folder, which knows its data and splits.

        Raises:
          UsageError: the model came from a file.
        """
        if self.workdir is None:
            raise UsageError("--source: missing; the file of a model does not hold the data of its run")
        return self.workdir

    def predict(self, images: np.ndarray | Sequence[GivenImage], *, cropped: bool = False) -> np.ndarray:
        """Return the probabilities [n, classes] of images, brought to the geometry that the model was trained with.

        Args:
          images: uint8 [n, h, w, 3] of any size; or a list of uint8 arrays [h, w, 3], PIL images or paths of image
            files, of mixed sizes. Each is cropped and resized as `config.data` says, as `bloodcell predict` does.
          cropped: the images are cropped already, such as cells of a segmentation; each is resized whole.

        Raises:
          UsageError: an array has another shape or dtype.
          DataError: an image cannot be read or shows nothing, or as `predict_examples` says.
        """
        return self.answer(images, cropped=cropped).probabilities

    def answer(self, images: np.ndarray | Sequence[GivenImage], *, cropped: bool = False) -> Answers:
        """Return the probabilities of images and whether the model knows such images; arguments as of `predict`."""
        ready = to_model_size(images, self.geometry, cropped=cropped)
        return self.answer_examples(ready, np.arange(len(ready)))

    @property
    def geometry(self) -> Geometry:
        """How image files are brought to the size of the network."""
        return Geometry.of(self.config.data)

    def mention_geometry(self, sizes: np.ndarray | None, sides: np.ndarray | None) -> None:
        """Log which part of image files is looked at, if any is not, and whether they fit those of training.

        Args:
          sizes: (width, height) of the files, int [n, 2]; None: the images are arrays.
          sides: side of the square of each that is looked at, int [n].
        """
        if sizes is None or sides is None or len(sizes) == 0:
            return
        if (sides < sizes.max(axis=1)).any():
            logger.info("%s", describe(sizes, sides, self.geometry))
        if isinstance(self.config.data.microns_per_pixel, str):
            logger.warning("the model was trained on images of known scale; give --microns_per_pixel of these as well")
        elif self.view is not None and self.geometry.microns_per_pixel is None:
            reason = misfit(self.view, view_of(sizes, sides))
            if reason is not None:
                logger.warning("%s", reason)

    def predict_examples(self, images: Images, indices: np.ndarray) -> np.ndarray:
        """Return the probabilities [n, classes] of those at `indices` of images of the model's size.

        They may be on the disk: they are read as they are needed.

        Raises:
          DataError: a probability is not finite, because the run diverged before this checkpoint.
        """
        return self.answer_examples(images, indices).probabilities

    def answer_examples(self, images: Images, indices: np.ndarray, *, sample: EmbeddingSample | None = None) -> Answers:
        """Return the answers to the same images, from one forward pass; arguments and errors as above.

        Args:
          sample: keeps what the head takes of some of these images.
        """
        # Without an image nothing is compiled.
        batches = self._evaluator.outputs(self._params, images, indices) if len(indices) else ()
        batches = batches if sample is None else sample.watch(batches)
        answers = answers_to(batches, self.calibration, len(self.class_names))
        check_finite(answers.probabilities, f"the checkpoint of step {self.step}")
        return answers

    def explain(
        self,
        images: np.ndarray | Sequence[GivenImage],
        classes: Sequence[str] | None = None,
        *,
        cropped: bool = False,
    ) -> ExplainedImages:
        """Return where in each image the model finds a class: Grad-CAM, and the fall of its probability by occlusion.

        An image costs 50 forward passes.

        Args:
          images, cropped: those of `predict`; at least one image.
          classes: name of the class of each image that is explained; None: the predicted class.

        Raises:
          UsageError, DataError: as `predict`; a class is unknown, or there is not one for each image.
        """
        ready = to_model_size(images, self.geometry, cropped=cropped)
        wanted = None if classes is None else self._labels_of(classes)
        if not len(ready) or (wanted is not None and len(wanted) != len(ready)):
            given = "" if wanted is None else f" and {len(wanted)} classes"
            raise UsageError(f"explain: {len(ready)} images{given}; give at least one image, and a class for each")
        every = np.arange(len(ready))
        explained = explain_images(self.outputs_and_grad_cam, ready, every, wanted, batch_size=self.batch_size)
        check_finite(softmax(explained.logits), f"the checkpoint of step {self.step}")
        return explained

    def _labels_of(self, names: Sequence[str]) -> np.ndarray:
        if unknown := set(names) - set(self.class_names):
            has = ", ".join(self.class_names)
            raise UsageError(f"explain: {min(unknown)} is no class of the model, which has {has}")
        return np.array([self.class_names.index(name) for name in names])

    def outputs_and_grad_cam(
        self, images: Images, indices: np.ndarray, classes: np.ndarray | None = None
    ) -> Iterator[tuple[Outputs, np.ndarray]]:
        """Yield the outputs of images of the model's size, and their Grad-CAM maps; see `Evaluator`."""
        return self._evaluator.outputs_and_grad_cam(self._params, images, indices, classes)

    @property
    def batch_size(self) -> int:
        """Images of one forward pass."""
        return self._evaluator.batch_size

    def answers_as_they_come(self, batches: Iterable[np.ndarray]) -> Iterator[Answers]:
        """Yield the answers to each batch; the next is awaited while the devices compute one.

        The rows equal those of `answer_examples` to the bit if every batch but the last has `batch_size` images.

        Args:
          batches: images of the model's size, uint8 [m, h, w, 3], 1 to `batch_size` of them.

        Raises:
          DataError: as `predict_examples` says.
        """
        for outputs in self._evaluator.outputs_as_they_come(self._params, batches):
            answers = answers_to([outputs], self.calibration, len(self.class_names))
            check_finite(answers.probabilities, f"the checkpoint of step {self.step}")
            yield answers


def _choose(folders: CheckpointFolders, wanted: str, ranking: Ranking) -> int:
    steps = folders.steps()
    if not steps:
        raise DataError(f"{folders.directory}: holds no finished checkpoint; train first, or wait for the first one")
    newest_first = steps[::-1]
    if wanted == "last":
        candidates = newest_first
    elif wanted == "best":
        candidates = folders.best(ranking) or newest_first
    elif wanted.isdecimal() and int(wanted) in steps:
        candidates = [int(wanted)]
    else:
        raise UsageError(f"--checkpoint={wanted}: there are best, last, {', '.join(map(str, steps))}")
    if (step := next(folders.usable(candidates), None)) is None:
        raise DataError(
            f"{folders.directory}: no checkpoint that --checkpoint={wanted} may mean is whole "
            f"({', '.join(map(str, candidates))}); take another one, or a copy"
        )
    return step


def _calibration_of(run: Workdir, step: int) -> Calibration | None:
    """Return what val said of a checkpoint, which only the file of the best one keeps; a warning if nothing did."""
    if not run.model.exists():
        _say_uncalibrated(run, f"{run.model.name} keeps the calibration, and the run writes it at its end")
        return None
    record = read_model_record(run.model)
    if record.step != step:
        _say_uncalibrated(
            f"{run}, step {step}", f"{run.model.name} is of step {record.step}, and so is its calibration"
        )
        return None
    if record.calibration is None:
        _say_uncalibrated(run.model, "the run's command, given again, asks val")
    return record.calibration


def _say_uncalibrated(what: object, why: str) -> None:
    logger.warning(
        "%s: not calibrated (%s); probabilities are the network's own (temperature 1), and no image is called unknown",
        what,
        why,
    )
