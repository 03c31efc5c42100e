"""The variant of a set of tensors: their names and shapes say everything except epsilon and activation."""

import re
from pathlib import Path

from bloodcell_jax.errors import DataError
from bloodcell_jax.models.variants import VARIANTS, Variant
from bloodcell_jax.weights.layouts import NamedWeights, our_shape


def infer_variant(path: Path, weights: NamedWeights, asked: str | None = None) -> str:
    """Return the name of the variant that the tensors have the structure of.

    Args:
      path: the file, for messages.
      weights: its tensors.
      asked: the variant that the user named; it decides between two that differ in what the file does not say.

    Raises:
      DataError: no variant has this structure, or two have it and the user named neither.
    """
    shapes = {name: our_shape(name, tensor) for name, tensor in weights.tensors.items()}
    try:
        found = _structure(shapes)
    except (KeyError, IndexError) as error:
        raise DataError(
            f"{path}: not a whole ConvNeXt in {weights.layout} layout; it lacks {error}; download or write it again"
        ) from error
    fitting = {variant.norm_before_pool: name for name, variant in VARIANTS.items() if _structure_of(variant) == found}
    if weights.hides_order:
        if asked is not None and asked in fitting.values():
            return asked
        raise DataError(_both_orders(path, fitting))
    order = bool(weights.norm_before_pool)
    if order in fitting:
        return fitting[order]
    depths, dims, kernel_sizes, grn, stem = found
    raise DataError(
        f"{path}: no published ConvNeXt has depths {depths}, dims {dims}, kernels {kernel_sizes}, "
        f"{'GRN' if grn else 'no GRN'}, a {stem} stem and its final norm {'before' if order else 'after'} the pooling; "
        "name the variant it is closest to"
    )


def _both_orders(path: Path, fitting: dict[bool, str]) -> str:
    """Return the message for a file that does not say where its final norm stands."""
    after, before = (
        f"--variant={fitting[order]} (config.model.variant)" if order in fitting else "no variant of this size has that"
        for order in (False, True)
    )
    return (
        f"{path}: has a head and does not say where its final norm stands; after the pooling, as with Keras' own top "
        f"or pooling='avg': {after}; before it, as with include_top=False and a pooling layer of your own: {before}"
    )


def head_classes(weights: NamedWeights) -> int | None:
    """Return the number of classes of the file's head; None if it has no head."""
    bias = weights.tensors.get("head/bias")
    return None if bias is None else our_shape("head/bias", bias)[-1]


def _structure_of(variant: Variant) -> tuple:
    return (
        variant.depths,
        variant.dims,
        variant.kernel_sizes,
        variant.grn,
        variant.stem,
    )


def _structure(shapes: dict[str, tuple[int, ...]]) -> tuple:
    blocks = [re.match(r"stage_(\d+)/block_(\d+)/", name) for name in shapes]
    places = {(int(match[1]), int(match[2])) for match in blocks if match}
    depths = tuple(sum(stage == i for stage, _ in places) for i in range(4))
    dims = (shapes["stem_norm/scale"][0], *(shapes[f"stage_{i}/downsample_conv/bias"][0] for i in (1, 2, 3)))
    kernel_sizes = tuple(shapes[f"stage_{i}/block_0/depthwise/kernel"][0] for i in range(4))
    stem = "patch"
    if "stem_conv_0/bias" in shapes:
        stem = "overlap" if shapes["stem_conv_0/bias"][0] == dims[0] else "overlap_tiered"
    grn = "stage_0/block_0/grn/scale" in shapes
    return depths, dims, kernel_sizes, grn, stem
