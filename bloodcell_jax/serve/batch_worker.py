"""One thread that owns the model: it joins the images of all requests into batches, and does what else they ask."""

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from bloodcell_jax.evaluate.classifier import Classifier

# Images of a pass: each size is compiled before the first request.
BATCH_SIZES = (1, 2, 4, 16, 64)
# How long a batch waits for images that are likely to come.
_BATCH_SECONDS = 0.01


class Answer(NamedTuple):
    """What the model says of one image: probabilities float64 [classes]; `ood_score` None: it is not calibrated."""

    probabilities: np.ndarray
    ood_score: float | None


class _Image(NamedTuple):
    pixels: np.ndarray
    answer: "Future[Answer]"


class _Task(NamedTuple):
    function: Callable[[], Any]
    result: "Future[Any]"


class BatchWorker:
    """Answers images, uint8 [h, w, 3] of the model's size, in batches across requests.

    A batch takes what waits, 64 images at most. For 10 ms at most it waits for images that are announced, and for as
    many as shared the system with the last batch: clients that have just got their answer ask again in a moment. So a
    single client never waits, and two that send one image after the other share every pass.
    """

    def __init__(self, classifier: Classifier, sizes: Sequence[int] = BATCH_SIZES):
        passes = [classifier.of_batch_size(size) for size in sizes]  # Several sizes are one on many devices.
        self._passes = list({each.batch_size: each for each in passes}.values())
        self._queue: queue.SimpleQueue[_Image | _Task | None] = queue.SimpleQueue()
        self._announced = 0
        # Images of the last batch and behind it, and when that was.
        self._last_count, self._last_time = 0, -math.inf
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def largest(self) -> Classifier:
        """The model with its largest batch."""
        return self._passes[-1]

    def announce(self) -> None:
        """Say that an image is on its way; `answer` or `withdraw` follows from the same thread."""
        self._announced += 1

    def withdraw(self) -> None:
        """Say that an announced image does not come."""
        self._announced -= 1

    def answer(self, pixels: np.ndarray) -> "Future[Answer]":
        """Return the answer to an announced image, once its batch is done."""
        self._announced -= 1
        image = _Image(pixels, Future())
        self._queue.put(image)
        return image.answer

    def run(self, function: Callable[[], Any]) -> "Future[Any]":
        """Return the result of a function that uses the model, once it had its turn between two batches."""
        task = _Task(function, Future())
        self._queue.put(task)
        return task.result

    def prepare(self) -> "Future[None]":
        """Compile each batch size, and what explains an image.

        Raises:
          DataError: through the future; the run diverged before this checkpoint.
        """
        size = self.largest.config.data.image_size
        noise = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)

        def compile_all() -> None:
            for classifier in self._passes:
                list(classifier.answers_as_they_come([noise]))
            self.largest.explain(noise, cropped=True)

        return self.run(compile_all)

    def close(self, patience: float) -> bool:
        """Drop what waits, and return whether the thread has ended within so many seconds."""
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is not None:
                (item.answer if isinstance(item, _Image) else item.result).cancel()
        self._queue.put(None)
        self._thread.join(patience)
        return not self._thread.is_alive()

    def _work(self) -> None:
        item = self._queue.get()
        while item is not None:
            if isinstance(item, _Task):
                _fulfill(item)
                item = self._queue.get()
            else:
                batch, others = self._collect(item)
                self._answer([image for image in batch if image.answer.set_running_or_notify_cancel()])
                item = others[0] if others else self._queue.get()

    def _collect(self, first: _Image) -> tuple[list[_Image], list[_Task | None]]:
        """Return a batch, and what was met behind it that is no image, if anything was."""
        batch, start = [first], time.monotonic()
        while len(batch) < self.largest.batch_size:
            try:
                item = self._queue.get(timeout=max(0.0, self._deadline(len(batch), start) - time.monotonic()))
            except queue.Empty:
                break
            if not isinstance(item, _Image):
                return batch, [item]
            batch.append(item)
        return batch, []

    def _deadline(self, count: int, start: float) -> float:
        """Return until when a batch of so many images, begun at `start`, waits for more."""
        if self._announced > 0:
            return start + _BATCH_SECONDS
        return self._last_time + _BATCH_SECONDS if count < self._last_count else -math.inf

    def _answer(self, batch: list[_Image]) -> None:
        start = 0
        for classifier in self._cut(len(batch)):
            self._answer_part(classifier, batch[start : start + classifier.batch_size])
            start += classifier.batch_size
        self._last_count, self._last_time = len(batch) + self._queue.qsize(), time.monotonic()

    def _cut(self, count: int) -> Iterator[Classifier]:
        """Yield the passes that so many images take: a pass costs as its size, so at least half of it is no padding."""
        while count > 0:
            enough = next(place for place, each in enumerate(self._passes) if each.batch_size >= count)
            is_filled = 2 * count > self._passes[enough].batch_size or enough == 0
            chosen = self._passes[enough if is_filled else enough - 1]
            yield chosen
            count -= chosen.batch_size

    def _answer_part(self, classifier: Classifier, batch: list[_Image]) -> None:
        try:
            (answers,) = classifier.answers_as_they_come([np.stack([image.pixels for image in batch])])
        except Exception as error:  # Whatever it is, the requests must not wait for ever.
            for image in batch:
                image.answer.set_exception(error)
            return
        scores = [None] * len(batch) if answers.ood_score is None else answers.ood_score.tolist()
        for image, probabilities, score in zip(batch, answers.probabilities, scores, strict=True):
            image.answer.set_result(Answer(probabilities, score))


def _fulfill(task: _Task) -> None:
    if not task.result.set_running_or_notify_cancel():
        return
    try:
        task.result.set_result(task.function())
    except Exception as error:  # It is raised again where the result is awaited.
        task.result.set_exception(error)
