"""What the verbs `evaluate` and `predict` do."""

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

from bloodcell_jax.data import pictures
from bloodcell_jax.data.class_folders import is_picture
from bloodcell_jax.data.cleaning import remove_rows
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.file_trees import FileTree, UnreadableFile, open_zip, read_file, read_folder
from bloodcell_jax.data.launch_cache import cached_sha256
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.errors import DataError, MachineError, UsageError
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.outputs import write_split
from bloodcell_jax.workdir import read_json, read_splits

# Pictures decoded, classified and written at a time: memory stays flat whatever the input.
_CHUNK = 1024

# A picture to classify: its name in the CSV and a function that returns its bytes.
_File = tuple[str, Callable[[], bytes]]


def evaluate_source(
    classifier: Classifier, source: str | None, split: str | None, output: str | None, *, skip_bad: bool = False
) -> tuple[Path, dict]:
    """Evaluate a classifier on one split of a source and write the split's files.

    Args:
      source: data source; None: the run's own.
      split: train, val, test or all; None: test, or val where there is none (of another source: all).
      skip_bad: leave out pictures of `source` that cannot be read; the run's own source is read as it was trained on.
      output: folder for the files; None: eval/<split> of the workdir, which needs the run's own source.

    Returns:
      The folder and the metrics.

    Raises:
      UsageError, DataError: as for training.
    """
    config = classifier.config
    if source is not None and output is None:
        raise UsageError("--output: missing; with --source the results need a folder of their own")
    dataset = load_source(
        source or config.data.source,
        image_size=config.data.image_size,
        crop=config.data.crop,
        class_names=classifier.class_names,
        skip_bad=config.data.skip_bad if source is None else skip_bad,
        data_dir=config.data.data_dir,
        in_memory=False,
    )
    if source is None:
        if config.data.clean is not None:
            dataset = remove_rows(dataset, config.data.clean)
        _check_same_data(dataset, classifier.workdir)
    splits = {"all": np.arange(len(dataset), dtype=np.int32)}
    splits |= read_splits(classifier.workdir) if source is None else dataset.splits
    if split is None:
        split = next(name for name in (("test", "val") if source is None else ("all",)) if name in splits)
    if split not in splits:
        raise UsageError(f"--split={split}: {dataset.source} has {', '.join(splits)}")
    indices = splits[split]
    probabilities = classifier.predict_examples(dataset.images, indices)
    folder = Path(output).expanduser() if output else classifier.workdir / "eval" / split
    return folder, write_split(folder, dataset, indices, probabilities, step=classifier.step)


def _check_same_data(dataset: Dataset, workdir: Path) -> None:
    trained_on = read_json(workdir / "environment.json")["data"]["sha256"]
    if (now := cached_sha256(dataset)) != trained_on:
        raise DataError(
            f"{dataset.source}: not the data this run was trained on (sha256 {now[:12]}, then "
            f"{trained_on[:12]}), so its splits are lost; name it by --source to evaluate on all of it"
        )


def predict_files(create_classifier: Callable[[], Classifier], inputs: list[str], output: Path, *, strict: bool) -> int:
    """Classify picture files into a CSV and return how many got a row.

    Args:
      create_classifier: called once the inputs are known to exist.
      inputs: pictures, folders (searched below), zips or glob patterns.
      output: the CSV; it appears whole or not at all.
      strict: refuse where any picture cannot be read.

    Raises:
      UsageError: an input matches nothing, or the output is a folder.
      DataError: no picture could be read, or, with `strict`, not all.
      MachineError: the output cannot be written.
    """
    if output.is_dir():
        raise UsageError(f"--output={output}: is a folder; name a file, as in {output / 'cells.csv'}")
    with ExitStack() as archives:
        files = [file for text in inputs for file in _find(text, archives)]
        if not files:
            raise DataError(f"--input={' '.join(inputs)}: holds no picture ({', '.join(sorted(pictures.SUFFIXES))})")
        return _predict_into(create_classifier(), files, output, strict)


def _predict_into(classifier: Classifier, files: list[_File], output: Path, strict: bool) -> int:
    temporary = output.with_name(output.name + ".tmp")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            written = _write_rows(classifier, files, csv.writer(file, lineterminator="\n"))
        if written == 0 or (strict and written < len(files)):
            raise DataError(f"{len(files) - written} of {len(files)} pictures could not be read; nothing was written")
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
            yield from _pictures(read_folder(path))
        elif zipfile.is_zipfile(path):
            yield from _pictures(archives.enter_context(open_zip(path, str(path))))
        else:
            yield path.name, partial(read_file, path, path.name)


def _pictures(tree: FileTree) -> Iterator[_File]:
    for path in tree.files:
        if is_picture(path):
            yield str(path), partial(tree.read, path)
    for name, reason in tree.refused.items():
        if is_picture(PurePosixPath(name)):
            yield name, partial(_refuse, name, reason)


def _refuse(name: str, reason: str) -> bytes:
    raise UnreadableFile(name, reason)


def _write_rows(classifier: Classifier, files: list[_File], writer) -> int:
    """Write the header and a row per readable picture; names the others on standard error."""
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
    geometry = {"image_size": classifier.config.data.image_size, "crop": classifier.config.data.crop}
    names, images = [], []
    for name, read in files:
        try:
            images.append(pictures.decode(read(), name, **geometry))
            names.append(name)
        except UnreadableFile as error:
            print(f"bloodcell: {error}", file=sys.stderr)
    return names, images
