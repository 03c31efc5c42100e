"""A trained model, ready to classify images."""

import copy
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from bloodcell_jax.config import Config
from bloodcell_jax.data.geometry import Geometry, View, describe, misfit, too_small
from bloodcell_jax.devices.parallel import create_parallel
from bloodcell_jax.errors import UsageError
from bloodcell_jax.evaluate.answers import Answers, answers_to
from bloodcell_jax.evaluate.evaluator import Change, Evaluator, Outputs
from bloodcell_jax.evaluate.explain.embedding_map import EmbeddingSample
from bloodcell_jax.evaluate.explain.explained_images import ExplainedImages, explain_images, labels_of
from bloodcell_jax.evaluate.given_images import GivenImage, to_model_size
from bloodcell_jax.evaluate.image_batches import Images
from bloodcell_jax.evaluate.metrics import check_finite
from bloodcell_jax.evaluate.stored_model import read_file, read_workdir
from bloodcell_jax.evaluate.temperature import softmax
from bloodcell_jax.models.network import Params
from bloodcell_jax.models.registry import build_model
from bloodcell_jax.pretrained import SHIPPED
from bloodcell_jax.weights.calibration import Calibration
from bloodcell_jax.weights.named_models import find_named_model
from bloodcell_jax.workdir import Workdir

logger = logging.getLogger(__name__)


class Classifier:
    """Class probabilities from a run's configuration and one of its checkpoints, or from the file of its model.

    Attributes:
      config: the run's resolved configuration; from a file, what concerns the network and its images, and defaults.
      class_names: in the order of the probabilities' columns.
      step: step of the checkpoint.
      workdir: the run's folder; None: the model came from a file.
      file: the file that the model came from; None: it came from a workdir, or from neither.
      view: what the model saw of the image files that it was trained on; None: it was trained on arrays.
      calibration: what val said of this checkpoint; None: probabilities are at temperature 1, and nothing is unknown.
      parallel: the devices.
      tta: the answers are means over an image's 8 orientations (test-time augmentation), at 8 times the cost.
    """

    def __init__(
        self,
        config: Config,
        params: Params,
        *,
        step: int,
        workdir: Workdir | None,
        file: Path | None = None,
        view: View | None = None,
        calibration: Calibration | None = None,
        tta: bool = False,
    ):
        self.config, self.step, self.view, self.calibration = config, step, view, calibration
        self.workdir, self.file = workdir, file
        self.class_names = config.data.class_names
        self.parallel, self.tta = create_parallel("jit", jax.device_count()), tta
        self._params = params
        self._evaluator = self._create_evaluator(config.evaluate.batch_size)

    def _create_evaluator(self, batch_size: int) -> Evaluator:
        model = self.config.model
        form = {"mean": model.mean, "std": model.std, "batch_size": batch_size, "tta": self.tta}
        return Evaluator(build_model(model), **form, parallel=self.parallel)

    def of_batch_size(self, batch_size: int) -> "Classifier":
        """Return the same model, its parameters not copied, with forward passes of another size.

        The last bits of a probability depend on this size.
        """
        other = copy.copy(self)
        other._evaluator = self._create_evaluator(batch_size)
        return other

    @classmethod
    def from_workdir(cls, workdir: str | Path, *, checkpoint: str | int = "best", tta: bool = False) -> "Classifier":
        """Load the model of a run.

        Args:
          workdir: the run's folder.
          checkpoint: `best` by `train.best_metric`, `last`, or a step.
          tta: average over the 8 orientations of an image; the temperature stays that of single answers.

        Raises:
          UsageError: there is no such checkpoint; the ones there are named.
          DataError: the workdir holds no run, or a file of it cannot be read.
        """
        return cls(**read_workdir(workdir, checkpoint)._asdict(), tta=tta)

    @classmethod
    def from_file(cls, path: str | Path, *, tta: bool = False) -> "Classifier":
        """Load the model of a finished run from its `model.safetensors` alone; `tta` is that of `from_workdir`.

        Raises:
          DataError: the file is missing, damaged or no model of a run; names what it lacks.
        """
        return cls(**read_file(path)._asdict(), tta=tta)

    @classmethod
    def from_pretrained(cls, name: str, *, tta: bool = False) -> "Classifier":
        """Load a model by its name: pbc_cnn or pbc_atto of the library, or hf:OWNER/NAME[@REVISION] of the hub.

        `tta` is that of `from_workdir`.

        Raises:
          UsageError: there is no such model, or a file has the same name; names what there is.
          DataError: it cannot be downloaded, or is no model of a run.
        """
        path = find_named_model(name)
        if path is None:
            raise UsageError(f"{name}: no such model; there is {', '.join(SHIPPED)}, and hf:OWNER/NAME")
        return cls.from_file(path, tta=tta)

    @property
    def params(self) -> Params:
        """The network's parameters, on every device."""
        return self._params

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

        A warning says if cells of files or PIL images have another size than those of training.

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
        ready = self._to_model_size(images, cropped=cropped)
        return self.answer_examples(ready, np.arange(len(ready)))

    def _to_model_size(self, images: np.ndarray | Sequence[GivenImage], *, cropped: bool) -> np.ndarray:
        pixels, sizes, sides = to_model_size(images, self.geometry, cropped=cropped)
        if len(sizes) and (reason := self.misfit(sizes, sides)):
            warnings.warn(reason, stacklevel=4)
        return pixels

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
            logger.info("%s", describe(sizes, sides, self.geometry, self.geometry.image_size))
        if reason := self.misfit(sizes, sides):
            logger.warning("%s", reason)

    def misfit(self, sizes: np.ndarray, sides: np.ndarray) -> str | None:
        """Return in which way files, sized as of `mention_geometry`, differ from those of training; None: they fit."""
        if isinstance(self.config.data.microns_per_pixel, str):
            return "the model was trained on images of known scale; give --microns_per_pixel of these as well"
        if self.geometry.microns_per_pixel is not None:
            return too_small(sizes, self.geometry)
        return None if self.view is None else misfit(self.view, sizes, sides)

    def predict_examples(self, images: Images, indices: np.ndarray) -> np.ndarray:
        """Return the probabilities [n, classes] of those at `indices` of images of the model's size, read as needed.

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
        return self._answers_to(batches if sample is None else sample.watch(batches))

    def answer_changed(self, images: Images, indices: np.ndarray, change: Change, *, batch_unit: int) -> Answers:
        """Return the answers to the same images after a change, in batches of a multiple of `batch_unit`."""
        size = -(-self.config.evaluate.batch_size // batch_unit) * batch_unit
        evaluator = self._create_evaluator(size)
        return self._answers_to(evaluator.outputs(self._params, images, indices, change=change) if len(indices) else ())

    def _answers_to(self, batches: Iterable[Outputs]) -> Answers:
        answers = answers_to(batches, self.calibration, len(self.class_names))
        check_finite(answers.probabilities, f"the checkpoint of step {self.step}")
        return answers

    def predict_changed(
        self,
        images: Images,
        indices: np.ndarray,
        changes: Sequence[Change],
        *,
        show: Callable[[int, int], None] = lambda done, total: None,
    ) -> np.ndarray:
        """Return the class [n, changes] of the same images after each change; they are read once.

        Args:
          images, indices: those of `predict_examples`.
          changes: of the images, on the devices.
          show: is told how many of all changed images are done.

        Raises:
          DataError: as `predict_examples` says.
        """
        classes = np.zeros((len(indices), len(changes)), np.int64)
        done = 0
        show(done, classes.size)
        for rows, number, logits in self._evaluator.logits_of_changes(self._params, images, indices, changes):
            check_finite(logits, f"the checkpoint of step {self.step}")
            classes[rows, number] = logits.argmax(axis=-1)
            done += len(logits)
            show(done, classes.size)
        return classes

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
        ready = self._to_model_size(images, cropped=cropped)
        wanted = None if classes is None else labels_of(classes, self.class_names)
        if not len(ready) or (wanted is not None and len(wanted) != len(ready)):
            given = "" if wanted is None else f" and {len(wanted)} classes"
            raise UsageError(f"explain: {len(ready)} images{given}; give at least one image, and a class for each")
        every = np.arange(len(ready))
        explained = explain_images(self.outputs_and_grad_cam, ready, every, wanted, batch_size=self.batch_size)
        check_finite(softmax(explained.logits), f"the checkpoint of step {self.step}")
        return explained

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
            yield self._answers_to([outputs])
