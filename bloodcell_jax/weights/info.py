"""What a checkpoint needs beside its tensors to be used as it was trained."""

import dataclasses
from dataclasses import dataclass

from bloodcell_jax.models.variants import VARIANTS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class WeightsInfo:
    """What the tensors do not say.

    Attributes:
      variant: a key of `bloodcell_jax.models.variants.VARIANTS`, or custom_cnn.
      num_classes: of the head; None where the file has none.
      norm_eps: of every LayerNorm; None for custom_cnn, as is activation.
      activation: `gelu` (erf), `gelu_tanh` or `silu`.
      mean: per channel, of images in [0, 1].
      std: likewise.
      input_size: side in pixels of the images it was trained or evaluated on.
      class_names: in label order; empty where not known.
      licence: of the weights; a model fine-tuned from them inherits it. Empty where not known.
      source: catalogue name or file the weights came from.
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


def variant_info(variant: str, num_classes: int | None, **known) -> WeightsInfo:
    """Return the info of a published variant; what `known` does not give is the variant's own or ImageNet's."""
    table = VARIANTS[variant]
    return WeightsInfo(variant, num_classes, norm_eps=table.norm_eps, activation=table.activation, **known)


def info_to_dict(info: WeightsInfo) -> dict:
    """Return the info as JSON values."""
    return dataclasses.asdict(info)


def info_from_dict(values: dict) -> WeightsInfo:
    """Return the info that `info_to_dict` wrote.

    Raises:
      TypeError, ValueError: the values are not those of a WeightsInfo.
    """
    known = {field.name for field in dataclasses.fields(WeightsInfo)}
    if not isinstance(values, dict) or values.keys() - known:
        raise ValueError("not the fields of a WeightsInfo")
    return WeightsInfo(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
