"""What held-out images said of a trained model, as its file keeps it: how to read its confidence, and what it knows."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

# What tells an image that the model does not know, in the order of `Reference.center` and `Reference.scale`.
OOD_SCORES = ("energy", "neighbors", "appearance")

# The names of its tensors in a model's file begin with it.
PREFIX = "calibration/"
_TENSORS = {"features": (np.float16, 2), "mean": (np.float32, 1), "whitening": (np.float32, 2)}


@dataclass(frozen=True)
class Reference:
    """Training images as a network sees them, and how far from them held-out images are.

    Attributes:
      features: `pooled` of some training images, scaled to length 1, float16 [m, c].
      mean: the mean appearance of these images (`Outputs.appearance`), float32 [d].
      whitening: makes the appearance minus its mean uncorrelated with variance 1, float32 [d, d].
      center: median of each of `OOD_SCORES` over val.
      scale: what lies between that median and the 99 % quantile.
      threshold: the largest of the scores, on these scales, up to which an image is known.
    """

    features: np.ndarray
    mean: np.ndarray
    whitening: np.ndarray
    center: tuple[float, ...]
    scale: tuple[float, ...]
    threshold: float

    @cached_property
    def wide_features(self) -> tuple[np.ndarray, np.ndarray]:
        """`features` in float32 and their squared lengths [m], made once: they would take longer than one image."""
        wide = self.features.astype(np.float32)
        return wide, np.sum(wide**2, axis=1)


@dataclass(frozen=True)
class Calibration:
    """What val said of a checkpoint.

    Attributes:
      examples: how many images val had.
      errors: how many of them the model got wrong.
      temperature: by which the logits are divided.
      ece: expected calibration error on val at this temperature.
      wanted_error: share of wrong answers that a user may want among those kept.
      confidence: from which on the answers are kept so that no more are wrong; None: no confidence keeps so few.
      coverage: share of the images of val whose answer is kept then; 0 if none is.
      reference: what the model knows.
    """

    examples: int
    errors: int
    temperature: float
    ece: float
    wanted_error: float
    confidence: float | None
    coverage: float
    reference: Reference


def calibration_values(calibration: Calibration) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return a calibration as JSON values, and its tensors by name."""
    names = [field.name for field in dataclasses.fields(Calibration) if field.name != "reference"]
    values = {name: getattr(calibration, name) for name in names}
    reference = calibration.reference
    values |= {name: getattr(reference, name) for name in ("center", "scale", "threshold")}
    return values, {PREFIX + name: getattr(reference, name) for name in _TENSORS}


def calibration_from(values: Any, tensors: Mapping[str, np.ndarray]) -> Calibration:
    """Return the calibration of JSON values and tensors that `calibration_values` gave; other tensors are left alone.

    Raises:
      KeyError, TypeError, ValueError: they are another program's, or damaged.
    """
    if not isinstance(values, dict):
        raise TypeError("calibration is no object")
    values = dict(values)
    arrays = {name: _array(tensors, name) for name in _TENSORS}
    if arrays["whitening"].shape != 2 * arrays["mean"].shape or 0 in arrays["features"].shape:
        raise ValueError("the tensors of its calibration do not fit each other")
    center, scale = (_numbers(values.pop(name), name) for name in ("center", "scale"))
    threshold = _number(values.pop("threshold"), "threshold", above=0)
    if min(scale) <= 0:
        raise ValueError("a scale of its calibration is not above 0")
    _check_counts(values["examples"], values["errors"])
    calibration = Calibration(**values, reference=Reference(**arrays, center=center, scale=scale, threshold=threshold))
    _number(calibration.temperature, "temperature", above=0)
    shares = {name: getattr(calibration, name) for name in ("ece", "wanted_error", "coverage")}
    shares |= {} if calibration.confidence is None else {"confidence": calibration.confidence}
    for name, share in shares.items():
        if not 0 <= _number(share, name) <= 1:
            raise ValueError(f"calibration.{name} is no share")
    return calibration


def _array(tensors: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    dtype, axes = _TENSORS[name]
    tensor = tensors[PREFIX + name]
    if tensor.dtype != dtype or tensor.ndim != axes:
        raise TypeError(f"{PREFIX}{name} is {tensor.dtype} {list(tensor.shape)}")
    if not np.isfinite(tensor).all():
        raise ValueError(f"{PREFIX}{name} is not finite")
    return np.array(tensor)  # A copy: the file may change while the model is in use.


def _check_counts(examples: Any, errors: Any) -> None:
    if type(examples) is not int or type(errors) is not int or not 0 <= errors <= examples < 2**63:
        raise TypeError("calibration.examples or errors is no count")


def _numbers(values: Any, name: str) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != len(OOD_SCORES):
        raise TypeError(f"calibration.{name} is not {len(OOD_SCORES)} numbers")
    return tuple(_number(value, name) for value in values)


def _number(value: Any, name: str, *, above: float = -math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= above:
        raise ValueError(f"calibration.{name} is no number that it can be")
    return float(value)
