"""Which images the pages of `predict` show: a bounded number of them, whatever the input."""

import heapq
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from bloodcell_jax.data.file_trees import UnreadableFile
from bloodcell_jax.data.image_files import decode_to_show, encode_jpeg
from bloodcell_jax.evaluate.classified_files import ClassifiedFile

# Images of a class on the gallery page, half of them the surest and half the least sure ones. A thumbnail of 96 px has
# 5 kB, so eight classes make a page of 2 MB.
GALLERY_SIZE = 48
# Pixels of the longer side of an image on the review page. PBC's files have 363.
_REVIEW_PIXELS = 400

Item = TypeVar("Item")


class Lowest(Generic[Item]):
    """Keeps the `count` items of the lowest keys, of equal keys the earlier ones."""

    def __init__(self, count: int):
        self._count, self._offered = count, 0
        self._heap: list[tuple[float, int, Item]] = []  # the highest key on top

    def offer(self, key: float, item: Item) -> None:
        """Keep an item, if its key is among the lowest."""
        self._offered += 1
        entry = (-key, -self._offered, item)
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, entry)
        elif self._count:
            heapq.heappushpop(self._heap, entry)

    def items(self) -> list[Item]:
        """Return the kept items by their keys, the lowest first."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: (-entry[0], -entry[1]))]


class Gallery:
    """Chooses the images of each predicted class that the gallery page shows."""

    def __init__(self, num_classes: int, size: int = GALLERY_SIZE):
        self._surest = [Lowest[ClassifiedFile](size - size // 2) for _ in range(num_classes)]
        self._least_sure = [Lowest[ClassifiedFile](size // 2) for _ in range(num_classes)]

    def offer(self, classified: ClassifiedFile) -> None:
        """Keep an image, if it is among those to show."""
        self._surest[classified.label].offer(-classified.confidence, classified)
        self._least_sure[classified.label].offer(classified.confidence, classified)

    def of_class(self, label: int) -> tuple[list[ClassifiedFile], list[ClassifiedFile]]:
        """Return the surest images of a class and the least sure others, both from sure to unsure."""
        surest = self._surest[label].items()
        shown = {classified.number for classified in surest}
        return surest, [file for file in reversed(self._least_sure[label].items()) if file.number not in shown]


class ReviewCell(NamedTuple):
    """An image that a person should look at.

    Attributes:
      classified: the file and the model's answer.
      jpeg: the file as a viewer shows it.
      size: width and height of the file.
    """

    classified: ClassifiedFile
    jpeg: bytes
    size: tuple[int, int]


class WorkList:
    """Chooses the images that a person should look at first: those whose answers are least certain or least known."""

    def __init__(self, size: int):
        self._size, self._least_certain, self._least_known = size, *(Lowest[ClassifiedFile](size) for _ in range(2))

    def offer(self, classified: ClassifiedFile) -> None:
        """Keep an image, if it is among the first of the list."""
        self._least_certain.offer(classified.confidence, classified)
        if classified.ood_score is not None:
            self._least_known.offer(-classified.ood_score, classified)

    def cells(self) -> list[ReviewCell]:
        """Return the chosen images in the order of review; their files are read once more."""
        both = [*self._least_certain.items(), *self._least_known.items()]
        candidates = list({classified.number: classified for classified in both}.values())
        scores = [classified.ood_score for classified in candidates]
        order = review_order(
            np.array([classified.confidence for classified in candidates]), None if None in scores else np.array(scores)
        )
        return [_review_cell(candidates[i]) for i in order[: self._size]]


def review_order(confidence: np.ndarray, ood_score: np.ndarray | None = None) -> np.ndarray:
    """Return the indices of examples, int [n], in the order in which a person should look at them.

    Args:
      confidence: the highest probability of each example, [n]. The lowest comes first, as in least-confidence sampling
        (Lewis and Gale 1994).
      ood_score: how far each is from what the model knows, [n], a higher one is farther. The farthest and the least
        certain take turns. None: not known.
    """
    least_certain = np.argsort(confidence, kind="stable")
    if ood_score is None:
        return least_certain
    turns = np.stack([np.argsort(-ood_score, kind="stable"), least_certain], axis=1).ravel()
    _, first = np.unique(turns, return_index=True)
    return turns[np.sort(first)]


def _review_cell(classified: ClassifiedFile) -> ReviewCell:
    image = classified.image
    try:
        shown = decode_to_show(classified.file.read(), classified.file.name, _REVIEW_PIXELS)
    except UnreadableFile:  # It has gone or changed since; what the model saw is still here.
        return ReviewCell(classified, encode_jpeg(image.pixels), (image.side, image.side))
    return ReviewCell(classified, encode_jpeg(shown), (image.width, image.height))
