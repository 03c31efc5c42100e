"""What the verb `predict` does: image files into a CSV."""

import csv
import glob
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from bloodcell_jax.data import image_files
from bloodcell_jax.data.class_folders import is_image
from bloodcell_jax.data.file_trees import FileTree, UnreadableFile, open_zip, read_file, read_folder
from bloodcell_jax.errors import DataError, MachineError, UsageError
from bloodcell_jax.evaluate.classifier import Classifier

# Images decoded, classified and written at a time: memory stays flat whatever the input.
_CHUNK = 1024

# An image to classify: its name in the CSV and a function that returns its bytes.
_File = tuple[str, Callable[[], bytes]]


def predict_files(create_classifier: Callable[[], Classifier], inputs: list[str], output: Path, *, strict: bool) -> int:
    """Classify image files into a CSV and return how many got a row.

    Args:
      create_classifier: called once the inputs are known to exist.
      inputs: images, folders (searched below), zips or glob patterns.
      output: the CSV; it appears whole or not at all.
      strict: refuse if any image cannot be read.

    Raises:
      UsageError: an input matches nothing, or the output is a folder.
      DataError: no image could be read, or, with `strict`, not all.
      MachineError: the output cannot be written.
    """
    if output.is_dir():
        raise UsageError(f"--output={output}: is a folder; name a file, as in {output / 'cells.csv'}")
    with ExitStack() as archives:
        files = [file for text in inputs for file in _find(text, archives)]
        if not files:
            raise DataError(f"--input={' '.join(inputs)}: holds no image ({', '.join(sorted(image_files.SUFFIXES))})")
        return _predict_into(create_classifier(), files, output, strict)


def _predict_into(classifier: Classifier, files: list[_File], output: Path, strict: bool) -> int:
    temporary = output.with_name(output.name + ".tmp")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            written = _write_rows(classifier, files, csv.writer(file, lineterminator="\n"))
        if written == 0 or (strict and written < len(files)):
            raise DataError(f"{len(files) - written} of {len(files)} images could not be read; nothing was written")
        temporary.replace(output)
    except OSError as error:
        raise MachineError(f"--output={output}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):  # a read-only place refuses even what is not there
            temporary.unlink(missing_ok=True)
    return written


def _find(text: str, archives: ExitStack) -> Iterator[_File]:
    text = os.path.expanduser(text)
    paths = [Path(text)] if Path(text).exists() else [Path(match) for match in sorted(glob.glob(text, recursive=True))]
    if not paths:
        raise UsageError(f"--input={text}: no such file, folder or match")
    for path in paths:
        if path.is_dir():
            yield from _images(read_folder(path))
        elif zipfile.is_zipfile(path):
            yield from _images(archives.enter_context(open_zip(path, str(path))))
        else:
            yield path.name, partial(read_file, path, path.name)


def _images(tree: FileTree) -> Iterator[_File]:
    for path in tree.files:
        if is_image(path):
            yield str(path), partial(tree.read, path)
    for name, reason in tree.refused.items():
        if is_image(PurePosixPath(name)):
            yield name, partial(_refuse, name, reason)


def _refuse(name: str, reason: str) -> bytes:
    raise UnreadableFile(name, reason)


def _write_rows(classifier: Classifier, files: list[_File], writer) -> int:
    """Write the header and a row per readable image; names the others on standard error."""
    writer.writerow(["file", "predicted", "confidence", *classifier.class_names])
    written = 0
    for start in range(0, len(files), _CHUNK):
        names, images = _read_all(files[start : start + _CHUNK], classifier)
        for name, row in zip(names, classifier.predict(np.array(images)) if images else (), strict=True):
            values = [f"{p:.6f}" for p in row]
            best = int(row.argmax())
            writer.writerow([name, classifier.class_names[best], values[best], *values])
        written += len(names)
    return written


def _read_all(files: list[_File], classifier: Classifier) -> tuple[list[str], list[np.ndarray]]:
    config = classifier.config.data
    names, images = [], []
    for name, read in files:
        try:
            images.append(image_files.decode(read(), name, image_size=config.image_size, crop=config.crop))
            names.append(name)
        except UnreadableFile as error:
            print(f"bloodcell: {error}", file=sys.stderr)
    return names, images
