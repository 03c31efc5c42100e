"""What the verb `predict` does: image files into a CSV."""

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from bloodcell_jax.data.decoded_files import is_image
from bloodcell_jax.data.file_trees import UnreadableFile
from bloodcell_jax.data.geometry import Geometry
from bloodcell_jax.data.image_files import SUFFIXES, DecodedImage, decode_sized
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.answers import Answers
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.input_files import InputFile, by_suffix, find_input_files, listed
from bloodcell_jax.names import spreadsheet_cell
from bloodcell_jax.workdir.output_files import check_unlike, csv_writer, open_output

logger = logging.getLogger(__name__)

# Images decoded, classified and written at a time: memory stays flat whatever the input.
_CHUNK = 1024


def predict_files(
    create_classifier: Callable[[], Classifier],
    inputs: list[str],
    output: Path,
    *,
    strict: bool,
    raw_names: bool = False,
) -> int:
    """Classify image files into a CSV and return how many got a row.

    The log names each image that got no row, and says what else was left out or not looked at.

    Args:
      create_classifier: called once the inputs are known to exist.
      inputs: images, folders (searched below), zips or glob patterns.
      output: the CSV; it appears whole or not at all. A device or pipe is written to at the end.
      strict: refuse if any image cannot be read, or has a suffix that is not read.
      raw_names: names in the CSV are exact, even if a spreadsheet would run them as formulas.

    Raises:
      UsageError: an input matches nothing; or the output is a folder, an input, or named like an image.
      DataError: no image could be read, or, with `strict`, not all; or the model's probabilities are not finite.
      MachineError: the output cannot be written.
    """
    if os.path.isdir(output):
        raise UsageError(f"--output={output}: is a folder; name a file, as in {output / 'cells.csv'}")
    if is_image(PurePosixPath(output.name)):
        raise UsageError(f"--output={output}: is named like an image; name a CSV, as in {output.with_suffix('.csv')}")
    with ExitStack() as archives:
        found = find_input_files(inputs, archives, strict=strict)
        if found.passed_over:
            raise DataError(
                "--strict: files that look like images, but have a suffix that is not read: "
                f"{len(found.passed_over):,} ({listed(found.passed_over)}); convert or remove them; nothing was written"
            )
        if not found.files:
            held = f"; it holds {by_suffix(found.others)}" if found.others else ""
            raise DataError(f"--input={' '.join(inputs)}: holds no image ({', '.join(sorted(SUFFIXES))}){held}")
        check_unlike(output, found.paths)
        return _predict_into(create_classifier(), found.files, output, strict, raw_names)


def _predict_into(classifier: Classifier, files: list[InputFile], output: Path, strict: bool, raw_names: bool) -> int:
    with open_output(output) as file:
        written = _write_rows(classifier, files, csv_writer(file), str if raw_names else spreadsheet_cell)
        if written == 0 or (strict and written < len(files)):
            raise DataError(f"{len(files) - written} of {len(files)} images could not be read; nothing was written")
    return written


def _write_rows(classifier: Classifier, files: list[InputFile], writer: Any, cell: Callable[[str], str]) -> int:
    """Write the header and a row per readable image; log the others, and what is looked at."""
    class_names = [cell(name) for name in classifier.class_names]
    unknown = [] if classifier.calibration is None else ["ood_score", "known"]
    writer.writerow(["file", "predicted", "confidence", *class_names, *unknown])
    seen: list[tuple[int, int, int]] = []
    for start in range(0, len(files), _CHUNK):
        names, images = _read_all(files[start : start + _CHUNK], classifier.geometry)
        pixels = np.array([image.pixels for image in images])
        answers = classifier.answer_examples(pixels, np.arange(len(names)))
        for name, row, told in zip(names, answers.probabilities, _told_of_unknown(answers), strict=True):
            values = [f"{p:.6f}" for p in row]
            best = int(row.argmax())
            writer.writerow([cell(name), class_names[best], values[best], *values, *told])
        seen += [(image.width, image.height, image.side) for image in images]
    found = np.array(seen, int).reshape(-1, 3)
    classifier.mention_geometry(found[:, :2], found[:, 2])
    return len(seen)


def _told_of_unknown(answers: Answers) -> list[list[str]]:
    """Return the last cells of each row; none if the model does not know what it knows."""
    if answers.ood_score is None or answers.known is None:
        return [[] for _ in answers.probabilities]
    pairs = zip(answers.ood_score, answers.known, strict=True)
    return [[f"{score:.6f}", "true" if known else "false"] for score, known in pairs]


def _read_all(files: list[InputFile], geometry: Geometry) -> tuple[list[str], list[DecodedImage]]:
    names, images = [], []
    for name, read in files:
        try:
            images.append(decode_sized(read(), name, geometry))
            names.append(name)
        except UnreadableFile as error:
            logger.warning("%s", error)
    return names, images
