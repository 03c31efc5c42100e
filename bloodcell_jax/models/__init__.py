"""Networks: ConvNeXt V1 and V2 under timm's names, and the small custom CNN."""

import dataclasses
import difflib

from flax import linen as nn

from bloodcell_jax.errors import UsageError
from bloodcell_jax.models.convnext import ACTIVATIONS, ConvNeXt
from bloodcell_jax.models.custom_cnn import CustomCNN
from bloodcell_jax.models.variants import VARIANTS, Variant

_VARIANT_FIELDS = {field.name for field in dataclasses.fields(Variant)}


def create_model(variant: str, num_classes: int, **overrides) -> nn.Module:
    """Return a network by timm's name, or `custom_cnn`.

    Args:
      variant: a key of VARIANTS, or custom_cnn.
      num_classes: of the head.
      **overrides: fields of the module (drop_path, head_init_scale, stem_stride, remat, dtype) or of its Variant
        (norm_eps, activation, kernel_sizes, layer_scale, ...).

    Raises:
      UsageError: an unknown name, option or value; names what there is.
    """
    if variant == "custom_cnn":
        return _create(CustomCNN, variant, {"num_classes": num_classes}, overrides)
    if variant not in VARIANTS:
        names = [*VARIANTS, "custom_cnn"]
        close = difflib.get_close_matches(variant, names, n=3)
        raise UsageError(
            f"{variant}: no such model; {'did you mean ' if close else 'there are '}{', '.join(close or names)}"
        )
    if overrides.get("activation", "gelu") not in ACTIVATIONS:
        raise UsageError(f"activation={overrides['activation']!r}: must be one of {', '.join(ACTIVATIONS)}")
    changes = {name: overrides.pop(name) for name in _VARIANT_FIELDS & overrides.keys()}
    changed = dataclasses.replace(VARIANTS[variant], **changes)
    return _create(ConvNeXt, variant, {"variant": changed, "num_classes": num_classes}, overrides)


def _create(module: type[nn.Module], variant: str, arguments: dict, overrides: dict) -> nn.Module:
    fields = {field.name for field in dataclasses.fields(module)} - {"parent", "name"}
    unknown = overrides.keys() - fields
    if unknown:
        raise UsageError(f"{variant} has no option {sorted(unknown)[0]}; it has {', '.join(sorted(fields))}")
    return module(**arguments, **overrides)
