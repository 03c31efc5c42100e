"""The facts beside the tensors that a checkpoint needs to be used as it was trained."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from bloodcell_jax.models.variants import VARIANTS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# The file of a finished run's model in its workdir.
MODEL_NAME = "model.safetensors"


@dataclass(frozen=True)
class WeightsInfo:
    """The facts about weights that their tensors do not say.

    Attributes:
      variant: a key of `bloodcell_jax.models.variants.VARIANTS`, or custom_cnn.
      num_classes: number of classes of the head; None if the file has no head.
      norm_eps: epsilon of every LayerNorm; None for custom_cnn.
      activation: `gelu` (erf), `gelu_tanh` or `silu`; None for custom_cnn.
      mean: mean per channel of images in [0, 1].
      std: standard deviation per channel of images in [0, 1].
      input_size: side in pixels of the images that the weights were trained or evaluated on.
      class_names: names in label order; empty if they are not known.
      licence: license of the weights; a model that is fine-tuned from them inherits it. Empty if it is not known.
      source: name in the catalog, file or data source that the weights come from.
      stem_stride: stride of a ConvNeXt's stem.
    """

    variant: str
    num_classes: int | None
    norm_eps: float | None = None
    activation: str | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    input_size: int = 224
    class_names: tuple[str, ...] = ()
    licence: str = ""
    source: str = ""
    stem_stride: int = 4


def variant_info(variant: str, num_classes: int | None, **known: Any) -> WeightsInfo:
    """Return the info of a published variant; fields that are not in `known` are the variant's own or ImageNet's."""
    table = VARIANTS[variant]
    return WeightsInfo(variant, num_classes, norm_eps=table.norm_eps, activation=table.activation, **known)


def info_to_dict(info: WeightsInfo) -> dict:
    """Return the info as JSON values."""
    return dataclasses.asdict(info)


def info_from_dict(values: Any) -> WeightsInfo:
    """Return the info that `info_to_dict` made `values` from.

    Raises:
      TypeError, ValueError: the values are not those of a WeightsInfo.
    """
    known = {field.name for field in dataclasses.fields(WeightsInfo)}
    if not isinstance(values, dict) or values.keys() - known:
        raise ValueError("not the fields of a WeightsInfo")
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    info = WeightsInfo(**given)
    if not _is_sound(info):
        raise ValueError("not the values of a WeightsInfo")
    return info


def _is_sound(info: WeightsInfo) -> bool:
    """Return whether the fields have the types that they should; JSON may hold any."""
    texts = (info.variant, info.licence, info.source, info.activation or "", *info.class_names)
    counts = (1 if info.num_classes is None else info.num_classes, info.input_size, info.stem_stride)
    numbers = (*info.mean, *info.std, 0.0 if info.norm_eps is None else info.norm_eps)
    return (
        isinstance(info.class_names, tuple)
        and len(info.mean) == len(info.std) == 3
        and all(isinstance(text, str) and text.isprintable() for text in texts)
        and all(type(count) is int and 0 < count < 2**31 for count in counts)
        and all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
    )
