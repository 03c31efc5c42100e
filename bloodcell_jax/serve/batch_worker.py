"""One thread that owns the model: it joins the images of all requests into batches, and does what else they ask."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from bloodcell_jax.evaluate.classifier import Classifier

# Images of a pass, padded up to the next of these sizes: each is compiled before the first request. A pass over 64
# images of which one is real takes as long as 64 passes over one.
BATCH_SIZES = (1, 4, 16, 64)
# How long a batch waits for images that are being decoded.
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

    A batch takes what waits, 64 images at most. It waits for images that are announced, 10 ms at most, and for nothing
    else: a client that sends one image at a time is answered at once.
    """

    def __init__(self, classifier: Classifier, sizes: Sequence[int] = BATCH_SIZES):
        passes = [classifier.of_batch_size(size) for size in sizes]  # Several sizes are one on many devices.
        self._passes = list({each.batch_size: each for each in passes}.values())
        self._queue: queue.SimpleQueue[_Image | _Task | None] = queue.SimpleQueue()
        self._announced = 0
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
        batch, deadline = [first], time.monotonic() + _BATCH_SECONDS
        while len(batch) < self.largest.batch_size:
            try:
                patience = max(0.0, deadline - time.monotonic()) if self._announced > 0 else 0.0
                item = self._queue.get(timeout=patience)
            except queue.Empty:
                break
            if not isinstance(item, _Image):
                return batch, [item]
            batch.append(item)
        return batch, []

    def _answer(self, batch: list[_Image]) -> None:
        if not batch:
            return
        classifier = next(each for each in self._passes if each.batch_size >= len(batch))
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
