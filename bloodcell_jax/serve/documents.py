"""What the API says, as JSON values: of the model, of an answered image, of what explains it."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import PurePosixPath
from typing import Any

from bloodcell_jax.data.image_files import SUFFIXES, encode_png
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.explain.agreement import rank_agreement
from bloodcell_jax.evaluate.explain.explained_images import ExplainedImages
from bloodcell_jax.evaluate.prediction_rows import csv_cells, csv_header, json_object
from bloodcell_jax.names import full_class_name, spreadsheet_cell, visible
from bloodcell_jax.report.explanation_view import LEAST_AGREEMENT
from bloodcell_jax.report.gallery_page import model_line
from bloodcell_jax.report.heat_layer import heat_layer
from bloodcell_jax.report.rendering import jpeg_address, png_address
from bloodcell_jax.report.review_page import manifest_cell
from bloodcell_jax.serve.limits import Limits
from bloodcell_jax.serve.served_model import AnsweredFile, Neighbor

# Digits of a value of a map.
_DIGITS = 5


def model_document(classifier: Classifier, limits: Limits) -> dict[str, Any]:
    """Return what `GET /model` says."""
    config, calibration = classifier.config, classifier.calibration
    return {
        "name": visible(model_line(classifier)),
        "variant": config.model.variant,
        "step": classifier.step,
        "version": metadata.version("bloodcell_jax"),
        "classes": [
            {"name": name, "title": visible(full_class_name(name)), "cell": spreadsheet_cell(name)}
            for name in classifier.class_names
        ],
        "image_size": config.data.image_size,
        "crop": config.data.crop,
        "microns_per_pixel": config.data.microns_per_pixel,
        "test_time_augmentation": classifier.tta,
        "calibrated": calibration is not None,
        "temperature": calibration.temperature if calibration else 1.0,
        "confidence_to_keep": calibration.confidence if calibration else None,
        "wanted_error": calibration.wanted_error if calibration else None,
        "csv_columns": csv_header(classifier.class_names, calibrated=calibration is not None),
        "suffixes": sorted(SUFFIXES),
        "limits": {"upload_bytes": limits.upload_bytes, "images": limits.images, "waiting": limits.waiting},
    }


def image_document(answered: AnsweredFile, class_names: Sequence[str], *, details: bool) -> dict[str, Any]:
    """Return what `POST /predict` says of an image that could be read; `details` are for pages."""
    classified = answered.classified
    assert classified is not None
    document = json_object(classified, class_names) | {"notes": [visible(note) for note in answered.notes]}
    if details:
        image = classified.image
        document |= {
            "path": manifest_cell(PurePosixPath(answered.file.name)),
            "csv": csv_cells(classified, class_names),
            "width": image.width,
            "height": image.height,
            "side": image.side,
            "seen": png_address(encode_png(image.pixels)),
            "shown": jpeg_address(answered.shown or b""),
        }
    return document


def unreadable_document(answered: AnsweredFile) -> dict[str, Any]:
    """Return what `POST /predict` says of an image that cannot be read."""
    return {"file": answered.file.name, "reason": answered.fault}


def explanation_document(explained: ExplainedImages, class_names: Sequence[str]) -> dict[str, Any]:
    """Return what `POST /explain` says of its image."""
    occlusion, grad_cam = explained.occlusion[0], explained.grad_cam[0]
    agreement = rank_agreement(grad_cam, occlusion)
    return {
        "class": class_names[explained.classes[0]],
        "occlusion": _rounded(occlusion.tolist()),
        "grad_cam": _rounded(grad_cam.tolist()),
        "rank_agreement": agreement,
        "grad_cam_agrees": agreement is not None and agreement >= LEAST_AGREEMENT,
        "occlusion_layer": heat_layer(occlusion),
        "grad_cam_layer": heat_layer(grad_cam),
    }


def _rounded(values: list[list[float]]) -> list[list[float]]:
    return [[float(f"{value:.{_DIGITS}g}") for value in line] for line in values]


def neighbors_document(neighbors: Sequence[Neighbor], without: str | None) -> dict[str, Any]:
    """Return what `POST /neighbors` says; `without`: why there are none."""
    return {
        "neighbors": [
            {
                "id": neighbor.id,
                "label": neighbor.label,
                "distance": round(neighbor.distance, _DIGITS),
                "image": jpeg_address(neighbor.jpeg),
            }
            for neighbor in neighbors
        ],
        "without": without,
    }
