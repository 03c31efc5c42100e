"""The gallery page of `predict`: the differential count, and images of each predicted class. It needs no other file."""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from bloodcell_jax.data.image_files import encode_jpeg
from bloodcell_jax.evaluate.classified_files import ClassifiedFile
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.predict_files import FilePredictions
from bloodcell_jax.names import full_class_name
from bloodcell_jax.report.rendering import jpeg_address, render
from bloodcell_jax.workdir.output_files import open_output


def write_gallery_page(path: Path, predictions: FilePredictions, inputs: Sequence[str], rows_file: Path) -> None:
    """Write the page; a device or pipe is written to, and not replaced.

    Args:
      path: where it goes.
      predictions: what `predict` found.
      inputs: as they were given.
      rows_file: the file of the answers.

    Raises:
      MachineError: it cannot be written.
    """
    names = predictions.classifier.class_names
    differential = predictions.differential
    folders = differential.folders if len(differential.folders) > 1 else {}
    html = render(
        "gallery.html",
        name=PurePath(inputs[0]).name or inputs[0],
        inputs=inputs,
        rows_file=rows_file,
        model=model_line(predictions.classifier),
        total=predictions.count,
        unreadable=predictions.unreadable,
        unknown=sum(differential.unknown.values()),
        rows=_rows(names, differential.total),
        folders=[
            {
                "name": folder,
                "total": int(counts.sum()),
                "unknown": differential.unknown[folder],
                "rows": _rows(names, counts),
            }
            for folder, counts in folders.items()
        ],
        classes=[_class(predictions, label, int(count)) for label, count in enumerate(differential.total) if count],
    )
    with open_output(path) as file:
        file.write(html)


def model_line(classifier: Classifier) -> str:
    """Return what model classified, as one line."""
    run = f"run {classifier.workdir.path.resolve().name}" if classifier.workdir else "a model file"
    return f"{classifier.config.model.variant}, {run}, step {classifier.step:,}"


def _rows(class_names: Sequence[str], counts: np.ndarray) -> list[dict[str, Any]]:
    total = counts.sum()
    return [
        {"name": full_class_name(name), "count": int(count), "share": count / total}
        for name, count in zip(class_names, counts, strict=True)
    ]


def _class(predictions: FilePredictions, label: int, count: int) -> dict[str, Any]:
    surest, least_sure = predictions.gallery.of_class(label)
    name = full_class_name(predictions.classifier.class_names[label])
    return {
        "name": name,
        "count": count,
        "between": count - len(surest) - len(least_sure),
        "surest": _images(surest, name),
        "least_sure": _images(least_sure, name),
    }


def _images(files: Iterable[ClassifiedFile], predicted: str) -> list[dict[str, Any]]:
    return [
        {
            "src": jpeg_address(encode_jpeg(classified.image.pixels)),
            "name": classified.file.name,
            "confidence": classified.confidence,
            "predicted": predicted,
        }
        for classified in files
    ]
