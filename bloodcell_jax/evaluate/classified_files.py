"""Image files with the model's answers, in their order: threads decode while the devices compute."""

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np

from bloodcell_jax.data.decoding_pool import map_ahead
from bloodcell_jax.data.file_trees import UnreadableFile
from bloodcell_jax.data.geometry import Geometry
from bloodcell_jax.data.image_files import DecodedImage, decode_sized
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.input_files import InputFile

logger = logging.getLogger(__name__)

# Batches that threads decode ahead: one that the devices will take next, and one that fills meanwhile.
_BATCHES_AHEAD = 2


class ClassifiedFile(NamedTuple):
    """An image file and what the model answers.

    Attributes:
      number: its place among the files, unreadable ones too.
      file: where it is from.
      image: what the model saw.
      probabilities: float64 [classes].
      ood_score: higher for what the model knows less, unknown above 1; None: the model is not calibrated.
    """

    number: int
    file: InputFile
    image: DecodedImage
    probabilities: np.ndarray
    ood_score: float | None = None

    @property
    def label(self) -> int:
        """The class of the highest probability, the first of equal ones."""
        return int(self.probabilities.argmax())

    @property
    def known(self) -> bool:
        """Whether the model knows such images, or cannot say."""
        return self.ood_score is None or self.ood_score <= 1

    @property
    def confidence(self) -> float:
        """The highest probability."""
        return float(self.probabilities[self.label])

    def most_likely(self, count: int) -> list[int]:
        """Return the `count` likeliest classes, the likeliest first."""
        return np.argsort(-self.probabilities, kind="stable")[:count].tolist()


class _Decoded(NamedTuple):
    image: DecodedImage | None  # None: it cannot be read
    notes: list[str]
    fault: str


def classify_files(
    classifier: Classifier, files: list[InputFile], show: Callable[[int, int], None] = lambda done, total: None
) -> Generator[ClassifiedFile, None, None]:
    """Yield every readable file with the model's answer, in order; the log names the others, in order as well.

    A few batches are in memory at a time. Close it (`contextlib.closing`) where the loop over it may end early: then no
    thread is left.

    Args:
      classifier: the model.
      files: the images.
      show: is told how many of all files are done, now and then.

    Raises:
      DataError: a probability is not finite.
    """
    done, total = 0, len(files)
    show(done, total)
    ahead, waiting = _BATCHES_AHEAD * classifier.batch_size, deque()
    decode = partial(_decode, geometry=classifier.geometry)
    with contextlib.closing(map_ahead(decode, files, ahead=ahead)) as decoded:
        batches = _batches(_readable(decoded), classifier.batch_size)
        for answers in classifier.answers_as_they_come(_pixels(batches, waiting)):
            batch = waiting.popleft()
            scores = [None] * len(batch) if answers.ood_score is None else answers.ood_score.tolist()
            for (number, image), row, score in zip(batch, answers.probabilities, scores, strict=True):
                yield ClassifiedFile(number, files[number], image, row, score)
            done = batch[-1][0] + 1
            show(done, total)
    if done < total:  # The last files cannot be read.
        show(total, total)


def _decode(file: InputFile, geometry: Geometry) -> _Decoded:
    notes: list[str] = []
    try:
        return _Decoded(decode_sized(file.read(), file.name, geometry, note=notes.append), notes, "")
    except UnreadableFile as error:
        return _Decoded(None, notes, str(error))


def _readable(decoded: Iterable[_Decoded]) -> Iterator[tuple[int, DecodedImage]]:
    """Yield the number and the image of each readable file; say what is to be said of each file, in order."""
    for number, (image, notes, fault) in enumerate(decoded):
        for note in notes:
            logger.info("%s", note)
        if image is None:
            logger.warning("%s", fault)
        else:
            yield number, image


def _batches(images: Iterator[tuple[int, DecodedImage]], batch_size: int) -> Iterator[list[tuple[int, DecodedImage]]]:
    while batch := list(islice(images, batch_size)):
        yield batch


def _pixels(
    batches: Iterable[list[tuple[int, DecodedImage]]], waiting: deque[list[tuple[int, DecodedImage]]]
) -> Iterator[np.ndarray]:
    """Yield the pixels of each batch, and let the batch wait for its probabilities."""
    for batch in batches:
        waiting.append(batch)
        yield np.array([image.pixels for _, image in batch])
