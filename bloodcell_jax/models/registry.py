"""Which networks there are, and how one is built from its name or from a configuration."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bloodcell_jax.config import ModelConfig, as_text
from bloodcell_jax.errors import UsageError
from bloodcell_jax.models.activations import ACTIVATIONS
from bloodcell_jax.models.convnext import ConvNeXt
from bloodcell_jax.models.custom_cnn import CustomCNN
from bloodcell_jax.models.network import Network, Params
from bloodcell_jax.models.variants import VARIANTS, Variant


def create_convnext(variant: Variant, *, num_classes: int, **options) -> ConvNeXt:
    """Return a ConvNeXt; options replace fields of the module or of its Variant.

    Raises:
      UsageError: an unknown activation.
    """
    if options.get("activation", "gelu") not in ACTIVATIONS:
        raise UsageError(f"activation={options['activation']!r}: must be one of {', '.join(ACTIVATIONS)}")
    own = {field.name for field in dataclasses.fields(Variant)} & options.keys()
    changed = dataclasses.replace(variant, **{name: options.pop(name) for name in own})
    return ConvNeXt(changed, num_classes, **options)


@dataclass(frozen=True)
class Architecture:
    """A network by name.

    Attributes:
      create: `(num_classes=..., **options) -> Network`.
      options: names of its options.
    """

    create: Callable[..., Network]
    options: frozenset[str]


def _fields(*classes: type) -> frozenset[str]:
    """Return the fields of dataclasses that are options."""
    names = {field.name for each in classes for field in dataclasses.fields(each)}
    return frozenset(names - {"parent", "name", "variant", "num_classes"})


MODELS: dict[str, Architecture] = {
    **{
        name: Architecture(partial(create_convnext, variant), _fields(ConvNeXt, Variant))
        for name, variant in VARIANTS.items()
    },
    "custom_cnn": Architecture(CustomCNN, _fields(CustomCNN)),
}


def create_model(variant: str, num_classes: int, **overrides) -> Network:
    """Return a network, a Linen module, by its name.

    Args:
      variant: timm's name of a ConvNeXt, or custom_cnn.
      num_classes: size of the head.
      **overrides: fields of the module (drop_path, head_init_scale, stem_stride, remat, dtype) or of a ConvNeXt's
        Variant (norm_eps, activation, kernel_sizes, layer_scale, ...).

    Raises:
      UsageError: an unknown name, option or value; names what there is.
    """
    if variant not in MODELS:
        close = difflib.get_close_matches(variant, MODELS, n=3)
        raise UsageError(
            f"{variant}: no such model; {'did you mean ' if close else 'there are '}{', '.join(close or MODELS)}"
        )
    architecture = MODELS[variant]
    if unknown := overrides.keys() - architecture.options:
        options = ", ".join(sorted(architecture.options))
        raise UsageError(f"{variant} has no option {', '.join(sorted(unknown))}; it has {options}")
    return architecture.create(num_classes=num_classes, **overrides)


def build_model(config: ModelConfig) -> Network:
    """Return the network of a resolved configuration.

    Raises:
      UsageError: it is not resolved, or as `create_model` says.
    """
    if config.num_classes is None:
        raise UsageError("config.model.num_classes: unset; a configuration that a run has resolved says it")
    names = ("drop_path", "layer_scale", "head_init_scale", "stem_stride", "norm_eps", "activation", "remat")
    names += ("scan_blocks",)
    # Only what differs from the defaults is passed on: a variant's own values stand, and a network without one of
    # these options refuses it by name.
    changed = {name: getattr(config, name) for name in names if getattr(config, name) != getattr(ModelConfig(), name)}
    check_options(config.variant, changed)
    return create_model(config.variant, config.num_classes, dtype=jnp.dtype(config.dtype), **changed)


def check_options(variant: str, options: Mapping[str, Any]) -> None:
    """Check that a network has all of some options of a configuration.

    Raises:
      UsageError: it has not; says how each is unset. An unknown network is left to `create_model`.
    """
    unknown = sorted(options.keys() - MODELS[variant].options) if variant in MODELS else []
    if unknown:
        given = ", ".join(f"config.model.{name}={as_text(options[name])}" for name in unknown)
        unset = " ".join(f"--config.model.{name}={as_text(getattr(ModelConfig(), name))}" for name in unknown)
        raise UsageError(f"{given}: {variant} has no such option; unset it by {unset}")


def init_params(model: Network, key: jax.Array, image_size: int) -> Params:
    """Return freshly drawn parameters."""
    return model.init(key, jnp.zeros((1, image_size, image_size, 3)), train=False)["params"]


def param_shapes(model: Network, image_size: int) -> Params:
    """Return the parameters as shapes; touches no device."""
    return jax.eval_shape(lambda: init_params(model, jax.random.key(0), image_size))


def count_parameters(params: Any) -> int:
    """Return the number of elements of a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
