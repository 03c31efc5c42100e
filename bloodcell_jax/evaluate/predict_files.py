"""What the verb `predict` does: image files into rows, a differential count, and the images for its pages."""

import contextlib
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from bloodcell_jax.data.image_files import SUFFIXES
from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.chosen_images import GALLERY_SIZE, Gallery, ReviewCell, WorkList
from bloodcell_jax.evaluate.classified_files import ClassifiedFile, classify_files
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.differential import Differential
from bloodcell_jax.evaluate.input_files import InputFiles, by_suffix, find_input_files, listed
from bloodcell_jax.evaluate.prediction_outputs import PredictionOutputs
from bloodcell_jax.evaluate.prediction_rows import check_top, row_writer
from bloodcell_jax.workdir.output_files import open_output


@dataclass(frozen=True)
class FilePredictions:
    """What `predict` found.

    Attributes:
      classifier: the model.
      count, unreadable: images that have a row, and images that have none.
      differential: the counts by predicted class and folder.
      gallery: the images of each class for the gallery page.
      review: the images for the review page, in order.
    """

    classifier: Classifier
    count: int
    unreadable: int
    differential: Differential
    gallery: Gallery
    review: list[ReviewCell]


def predict_files(
    create_classifier: Callable[[], Classifier],
    inputs: list[str],
    outputs: PredictionOutputs,
    *,
    strict: bool,
    raw_names: bool = False,
    top: int = 1,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> FilePredictions:
    """Classify image files into a CSV or JSON lines, and return their counts and what the pages will show.

    The log names each image that got no row, and says what else was left out or not looked at.

    Args:
      create_classifier: called once the inputs are known to exist.
      inputs: images, folders (searched below), zips or glob patterns.
      outputs: the file of the rows appears whole or not at all; a device or pipe is written to at the end. Pages are
        not written here.
      strict: refuse if any image cannot be read, or has a suffix that is not read.
      raw_names: names in the CSV are exact, even if a spreadsheet would run them as formulas.
      top: how many of the likeliest classes have columns of their own.
      show: is told how many of all images are done, now and then.

    Raises:
      UsageError: an input matches nothing; or an output is a folder, an input, or named like an image.
      DataError: no image could be read, or, with `strict`, not all; or the model's probabilities are not finite.
      MachineError: the output cannot be written.
    """
    outputs.check()
    with ExitStack() as archives:
        found = _find(inputs, archives, strict)
        outputs.check_unlike(found.paths)
        classifier = create_classifier()
        check_top(top, classifier.class_names)
        with open_output(outputs.rows) as file:
            form = {"top": top, "calibrated": classifier.calibration is not None, "raw_names": raw_names}
            write = row_writer(outputs.rows, file, classifier.class_names, **form)
            collected = _Collected(classifier, outputs)
            with contextlib.closing(classify_files(classifier, found.files, show)) as classified_files:
                for classified in classified_files:
                    write(classified)
                    collected.add(classified)
            collected.mention_geometry()
            unreadable = len(found.files) - collected.count
            if collected.count == 0 or (strict and unreadable):
                raise DataError(f"{unreadable} of {len(found.files)} images could not be read; nothing was written")
        review = collected.work_list.cells()  # It reads files, while the archives are open.
    return FilePredictions(classifier, collected.count, unreadable, collected.differential, collected.gallery, review)


def _find(inputs: list[str], archives: ExitStack, strict: bool) -> InputFiles:
    found = find_input_files(inputs, archives, strict=strict)
    if found.passed_over:
        raise DataError(
            "--strict: files that look like images, but have a suffix that is not read, and links that lead nowhere: "
            f"{len(found.passed_over):,} ({listed(found.passed_over)}); convert or remove them; nothing was written"
        )
    if not found.files:
        held = f"; it holds {by_suffix(found.others)}" if found.others else ""
        if ".zip" in found.others:
            held += ", and a zip is read if it is the input itself"
        raise DataError(f"--input={' '.join(inputs)}: holds no image ({', '.join(sorted(SUFFIXES))}){held}")
    return found


class _Collected:
    """What is kept of all images: counts and sizes of each, the pixels of a few."""

    def __init__(self, classifier: Classifier, outputs: PredictionOutputs):
        self._classifier, self._sizes = classifier, array("i")
        self.differential = Differential(classifier.class_names)
        self.gallery = Gallery(len(classifier.class_names), GALLERY_SIZE if outputs.page else 0)
        self.work_list = WorkList(outputs.review_size)

    def add(self, classified: ClassifiedFile) -> None:
        image = classified.image
        self._sizes.extend((image.width, image.height, image.side))
        self.differential.add(classified.file.folder, classified.label, known=classified.known)
        self.gallery.offer(classified)
        self.work_list.offer(classified)

    @property
    def count(self) -> int:
        return len(self._sizes) // 3

    def mention_geometry(self) -> None:
        sizes = np.array(self._sizes).reshape(-1, 3)
        self._classifier.mention_geometry(sizes[:, :2], sizes[:, 2])
