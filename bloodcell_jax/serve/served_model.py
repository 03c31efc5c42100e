"""What requests ask of the model: answers to images, what explains one of them, and its nearest training images."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from bloodcell_jax.data.decoding_pool import DECODING_THREADS
from bloodcell_jax.data.file_trees import UnreadableFile
from bloodcell_jax.data.image_files import DecodedImage, decode_sized, decode_to_show, encode_jpeg
from bloodcell_jax.errors import UserError
from bloodcell_jax.evaluate.classified_files import ClassifiedFile
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.explain.explained_images import ExplainedImages
from bloodcell_jax.evaluate.explain.training_neighbors import TrainingImages, nearest_training_images
from bloodcell_jax.evaluate.input_files import InputFile
from bloodcell_jax.evaluate.training_images import training_images
from bloodcell_jax.serve.batch_worker import BatchWorker

logger = logging.getLogger(__name__)

# Images of a request that are decoded ahead: enough for one batch to wait while the devices compute another. The images
# of other requests wait behind so many, and not behind all of a large zip.
_AHEAD = 128
# Pixels of the longer side of an image on the page: a browser holds thousands of them.
_SHOWN_PIXELS = 240
_NEIGHBORS = 3


class AnsweredFile(NamedTuple):
    """An image of a request.

    Attributes:
      file: what was sent.
      classified: the model's answer; None: the image cannot be read.
      fault: why it cannot be read.
      notes: what was left out of the file.
      shown: the file as a viewer shows it, JPEG; None: nobody asked for it.
    """

    file: InputFile
    classified: ClassifiedFile | None
    fault: str = ""
    notes: tuple[str, ...] = ()
    shown: bytes | None = None


class _Decoded(NamedTuple):
    image: DecodedImage | None
    fault: str
    notes: tuple[str, ...]
    shown: bytes | None


class Neighbor(NamedTuple):
    """A training image: its id and class, the distance between features of length 1, and the image as JPEG."""

    id: str
    label: str
    distance: float
    jpeg: bytes


@dataclass
class ServedModel:
    """A model and the threads that work for it. Its coroutines belong to one event loop."""

    classifier: Classifier

    def __post_init__(self):
        self.worker = BatchWorker(self.classifier)
        self._decoders = ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix="decoding")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="training images")
        self._training: Future[TrainingImages] | None = None

    def close(self, patience: float) -> bool:
        """Drop what waits, and return whether all threads have ended within so many seconds."""
        for pool in (self._decoders, self._reader):
            pool.shutdown(wait=False, cancel_futures=True)
        reading = self._training is not None and self._training.running()
        return self.worker.close(patience) and not reading

    async def answers(
        self, files: Sequence[InputFile], *, cropped: bool = False, show: bool = False
    ) -> AsyncGenerator[AnsweredFile, None]:
        """Yield the answer to each image, in order.

        Args:
          files: the images.
          cropped: they are cropped already; each is resized whole.
          show: also make what a page shows of each.
        """
        running: deque[asyncio.Task[AnsweredFile]] = deque()
        try:
            for number, file in enumerate(files):
                running.append(asyncio.ensure_future(self._answer(number, file, cropped=cropped, show=show)))
                if len(running) >= _AHEAD:
                    yield await running[0]
                    running.popleft()
            while running:
                yield await running[0]
                running.popleft()
        finally:
            for task in running:
                task.cancel()

    async def _answer(self, number: int, file: InputFile, *, cropped: bool, show: bool) -> AnsweredFile:
        loop = asyncio.get_running_loop()
        decode = partial(_decode, file, self.classifier, cropped=cropped, show=show)
        self.worker.announce()
        try:
            decoded = await loop.run_in_executor(self._decoders, decode)
        except BaseException:
            self.worker.withdraw()
            raise
        if decoded.image is None:
            self.worker.withdraw()
            return AnsweredFile(file, None, decoded.fault, decoded.notes)
        answer = await asyncio.wrap_future(self.worker.answer(decoded.image.pixels))
        classified = ClassifiedFile(number, file, decoded.image, answer.probabilities, answer.ood_score)
        return AnsweredFile(file, classified, "", decoded.notes, decoded.shown)

    async def explain(self, file: InputFile, class_name: str | None, *, cropped: bool) -> ExplainedImages:
        """Explain the answer to one image, see `Classifier.explain`; `class_name` None: of the predicted class.

        Raises:
          UnreadableFile: it cannot be read.
          UsageError: the model has no such class.
        """
        pixels = await self._pixels(file, cropped=cropped)
        classes = None if class_name is None else [class_name]
        explain = partial(self.worker.largest.explain, pixels[None], classes, cropped=True)
        return await asyncio.wrap_future(self.worker.run(explain))

    async def neighbors(self, file: InputFile, *, cropped: bool) -> list[Neighbor]:
        """Return the training images that the model takes for most like an image; the first call reads them all.

        Raises:
          UnreadableFile: it cannot be read.
          UserError: there are no training images at hand; says why.
        """
        pixels = await self._pixels(file, cropped=cropped)
        if self._training is None:
            self._training = self._reader.submit(_kept_images, self.classifier)
        training = await asyncio.shield(asyncio.wrap_future(self._training))
        return await asyncio.wrap_future(self.worker.run(partial(_neighbors, self.worker.largest, pixels, training)))

    async def _pixels(self, file: InputFile, *, cropped: bool) -> np.ndarray:
        decode = partial(_decode, file, self.classifier, cropped=cropped, show=False)
        decoded = await asyncio.get_running_loop().run_in_executor(self._decoders, decode)
        if decoded.image is None:
            raise UnreadableFile(file.name, decoded.fault)
        return decoded.image.pixels


def _decode(file: InputFile, classifier: Classifier, *, cropped: bool, show: bool) -> _Decoded:
    notes: list[str] = []
    try:
        content = file.read()
        image = decode_sized(content, file.name, classifier.geometry, whole=cropped, note=notes.append)
        shown = encode_jpeg(decode_to_show(content, file.name, _SHOWN_PIXELS)) if show else None
        return _Decoded(image, "", tuple(notes), shown)
    except UnreadableFile as error:
        return _Decoded(None, error.reason, tuple(notes), None)


def _kept_images(classifier: Classifier) -> TrainingImages:
    """Return the images that the calibration keeps the features of, and let go of all others."""
    try:
        dataset, indices, features = training_images(classifier)
    except UserError as error:
        logger.warning("no training images are shown: %s", error)
        raise
    kept = np.zeros(len(dataset), bool)
    kept[indices] = True
    return TrainingImages(dataset.select(kept).in_memory(), np.arange(len(indices), dtype=np.int32), features)


def _neighbors(classifier: Classifier, pixels: np.ndarray, training: TrainingImages) -> list[Neighbor]:
    (batch,) = classifier.outputs_and_grad_cam(pixels[None], np.zeros(1, np.int32))
    found = nearest_training_images(classifier.outputs_and_grad_cam, batch[0].pooled, training, _NEIGHBORS)
    dataset = training.dataset
    return [
        Neighbor(
            str(dataset.ids[int(example)]),
            dataset.class_names[dataset.labels[example]],
            float(distance),
            encode_jpeg(dataset.images[int(example)]),
        )
        for example, distance in zip(found.examples[0], found.distances[0], strict=True)
    ]
