"""The review page of `predict`: cells that a person should judge; the page saves what the person says as a manifest."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from bloodcell_jax.config.data import SCALE
from bloodcell_jax.data.file_trees import example_id
from bloodcell_jax.evaluate.chosen_images import ReviewCell
from bloodcell_jax.evaluate.input_files import InputFile
from bloodcell_jax.evaluate.predict_files import FilePredictions
from bloodcell_jax.names import full_class_name, shell_word, spreadsheet_cell
from bloodcell_jax.report.gallery_page import model_line
from bloodcell_jax.report.rendering import jpeg_address, render
from bloodcell_jax.workdir.output_files import open_output

_ANSWERS_SHOWN = 3


def write_review_page(path: Path, predictions: FilePredictions, model: Mapping[str, str]) -> PurePosixPath:
    """Write the page, and return the folder or zip that the paths of its corrections begin in.

    Args:
      path: where it goes.
      predictions: what `predict` found.
      model: flags that name the model and how it looks at images, and their values, such as `{"workdir": "runs/a"}`.

    Raises:
      MachineError: it cannot be written.
    """
    names = predictions.classifier.class_names
    root, paths = manifest_paths([cell.classified.file for cell in predictions.review], path.parent)
    cells = [_cell(cell, inside, names) for cell, inside in zip(predictions.review, paths, strict=True)]
    html = render(
        "review.html",
        scripts=("corrections.js", "review.js"),
        cells=cells,
        classes=[{"name": full_class_name(name), "cell": spreadsheet_cell(name)} for name in names],
        total=predictions.count,
        model=model_line(predictions.classifier),
        key=_key(cells),
        root=root,
        beside=str(root) == os.path.abspath(path.parent),
        marked=any(cell["mark"] for cell in cells),
        commands=_commands(str(root), names, model),
    )
    with open_output(path) as file:
        file.write(html)
    return root


def manifest_paths(files: Sequence[InputFile], beside: Path) -> tuple[PurePosixPath, list[str]]:
    """Return the root of a manifest that names image files, and the path of each of them below it.

    Args:
      files: the images, in folders and zips.
      beside: where the manifest should lie; it is the root if it holds all files, so that nobody has to name it. Else
        the root is the folder or zip of the input that holds all of them, or the folder that several have in common.
    """
    paths = [file.root / file.inside for file in files]
    folder, roots = PurePosixPath(os.path.abspath(beside)), {file.root for file in files}
    if all(path.is_relative_to(folder) for path in paths):
        root = folder
    elif len(roots) == 1:
        (root,) = roots
    else:
        root = PurePosixPath(os.path.commonpath([root if os.path.isdir(root) else root.parent for root in roots]))
    return root, [manifest_cell(path.relative_to(root)) for path in paths]


def manifest_cell(path: PurePosixPath) -> str:
    """Return a path as a manifest finds it, in a form that no spreadsheet runs as a formula."""
    text = str(path) if str(path).isprintable() else example_id(path)
    return text if spreadsheet_cell(text) == text else f"./{text}"


def _cell(cell: ReviewCell, path: str, class_names: Sequence[str]) -> dict[str, Any]:
    classified = cell.classified
    answers = classified.most_likely(_ANSWERS_SHOWN)
    return {
        "name": classified.file.name,
        "path": path,
        "predicted": spreadsheet_cell(class_names[classified.label]),
        "answers": [
            {"name": full_class_name(class_names[label]), "probability": float(classified.probabilities[label])}
            for label in answers
        ],
        "src": jpeg_address(cell.jpeg),
        "mark": _mark(cell),
    }


def _mark(cell: ReviewCell) -> dict[str, float] | None:
    """Return where the square that the model looked at is, in shares of the image; None: it is the whole image."""
    (width, height), side = cell.size, cell.classified.image.side
    if side == width == height:
        return None
    across, down = side / width, side / height
    return {"left": (1 - across) / 2, "top": (1 - down) / 2, "width": across, "height": down}


def _key(cells: Sequence[dict[str, Any]]) -> str:
    """Return what names this work list in the browser: another list of cells, or other answers, is other work."""
    content = [(cell["path"], cell["answers"], hashlib.sha256(cell["src"].encode()).hexdigest()) for cell in cells]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _commands(root: str, class_names: Sequence[str], model: Mapping[str, str]) -> dict[str, str]:
    source = "csv:corrections.csv"
    start = model.get("workdir") or model["model"]
    scale = {name: model[name] for name in SCALE if name in model}
    words = {
        "evaluate": [
            *(f"--{flag}={value}" for flag, value in model.items()),
            f"--source={source}",
            f"--root={root}",
            "--output=corrected",
        ],
        "audit": [f"--source={source}", f"--root={root}", "--output=audit"],
        "train": [
            f"--config=adapt:{start}",
            "--workdir=runs/corrected",
            f"--config.data.source={source}",
            f"--config.data.root={root}",
            # Without them, the new model would not know the classes that no corrected cell has.
            f"--config.data.class_names={tuple(class_names)}",
            *(f"--config.data.{name}={value}" for name, value in scale.items()),
        ],
    }
    return {verb: " ".join(map(shell_word, ["bloodcell", verb, *rest])) for verb, rest in words.items()}
