"""What travels with every export: the model card, the license, and the facts that a program needs."""

from collections.abc import Callable
from typing import Any

from bloodcell_jax.config import AUTO, DataConfig
from bloodcell_jax.config.data import GEOMETRY
from bloodcell_jax.data.geometry import PUBLISHED_CROP, PUBLISHED_MICRONS, PUBLISHED_SIDE, View
from bloodcell_jax.export.trained_model import TrainedModel
from bloodcell_jax.names import visible
from bloodcell_jax.weights.info import WeightsInfo

README_NAME, LICENSE_NAME = "README.md", "LICENSE.txt"


def facts(model: TrainedModel) -> dict[str, Any]:
    """Return what a program needs to use the model, as JSON values."""
    config, record = model.config, model.record
    geometry = {name: getattr(config.data, name) for name in GEOMETRY}
    return {
        "variant": config.model.variant,
        "class_names": model.class_names,
        "temperature": model.temperature,
        "mean": config.model.mean,
        "std": config.model.std,
        "geometry": geometry | {"resize": "bicubic with antialiasing", "channels": "RGB"},
        "step": record.step,
        "val": record.metrics,
        "license": model.info.licence,
        "source": model.info.source,
        "version": record.version,
    }


def card(model: TrainedModel, use: str) -> str:
    """Return the model card as Markdown.

    Args:
      model: the model.
      use: how this export is loaded, as Markdown.
    """
    sections: dict[str, Callable[[TrainedModel], str]] = {
        "Classes": _classes,
        "Images": _images,
        "Confidence": _confidence,
        "Scores": _scores,
        "What it is not for": _limits,
        "License": lambda model: license_text(model.info),
    }
    head = f"# {model.config.model.variant}, {len(model.class_names)} classes"
    about = f"Classifies images of single blood cells; {visible(model.info.source)}."
    texts = [f"## {title}\n\n{text(model).strip()}" for title, text in sections.items()]
    return "\n\n".join([head, about, f"## Use\n\n{use.strip()}", *texts]) + "\n"


def license_text(info: WeightsInfo) -> str:
    """Return what is known of the license of a model's weights."""
    if not info.licence:
        return (
            "No license is known for these weights: their training did not begin with weights of a known license. Who "
            "trained them decides, within the terms of the training images.\n"
        )
    return (
        f"License of these weights, or of those that their training began with, which they inherit: "
        f"{visible(info.licence)} (https://spdx.org/licenses/). They were {visible(info.source)}. The terms of the "
        "training images hold as well.\n"
    )


def _classes(model: TrainedModel) -> str:
    return "In the order of the outputs:\n\n" + "\n".join(
        f"{number}. `{visible(name)}`" for number, name in enumerate(model.class_names)
    )


def _images(model: TrainedModel) -> str:
    data, config = model.config.data, model.config.model
    view = model.record.view
    seen = f" The training images were {View(**view)} (medians)." if view else ""
    return (
        f"RGB, {data.image_size}x{data.image_size} pixels, one cell in the middle. {crop_text(data)} The "
        f"square is resized, bicubic with antialiasing.{seen}\n\nThe network takes (image / 255 - mean) / std, with "
        f"mean {_numbers(config.mean)} and std {_numbers(config.std)}."
    )


def crop_text(data: DataConfig) -> str:
    """Say in sentences which square of an image file the model looks at."""
    if data.crop is None:
        return "The largest centered square of a file is used."
    if isinstance(data.crop, float):
        return f"The centered square of {data.crop:g} of a file's shorter side is used."
    pixels, scale = PUBLISHED_CROP if data.crop == AUTO else data.crop, data.microns_per_pixel
    if scale is not None:
        files = (
            f"each file had its own scale, in the column `{visible(scale)}`, so the scale of other files must be known"
            if isinstance(scale, str)
            else f"the files had {scale:g} micrometers per pixel"
        )
        return f"The centered square of {pixels} pixels of {PUBLISHED_MICRONS:g} micrometers is used; {files}."
    if data.crop == AUTO:
        return (
            f"Of a file whose shorter side is within 5 % of {PUBLISHED_SIDE} pixels, the centered square of {pixels} "
            "pixels is used; of any other file the largest centered square."
        )
    return f"The centered square of {pixels} pixels is used; of a smaller file the largest centered square."


def _confidence(model: TrainedModel) -> str:
    calibration = model.record.calibration
    if calibration is None:
        return "Not calibrated: the probabilities are those of temperature 1, and may be too sure."
    text = (
        f"The logits are divided by the temperature {calibration.temperature:g}, fitted on {calibration.examples:,} "
        f"validation images (expected calibration error {calibration.ece:.4f})."
    )
    if calibration.confidence is None:
        return text
    return (
        f"{text} Of the answers with a confidence of {calibration.confidence:.4f} or more, at most "
        f"{100 * calibration.wanted_error:g} % were wrong; they were {100 * calibration.coverage:.1f} % of the images."
    )


def _scores(model: TrainedModel) -> str:
    rows = [f"| {name} | {value:.4f} |" for name, value in model.record.metrics.items() if value is not None]
    if not rows:
        return "No scores were logged for this checkpoint."
    head = f"On the validation split, at step {model.record.step:,}:\n\n| metric | value |\n|---|---:|\n"
    return head + "\n".join(rows)


def _limits(_: TrainedModel) -> str:
    return (
        "It is no medical device, and no diagnosis may rest on it. Every image gets one of the classes above, also one "
        "that shows none of them. Scores hold for images like those of training; another microscope, stain or "
        "laboratory needs an evaluation of its own."
    )


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
