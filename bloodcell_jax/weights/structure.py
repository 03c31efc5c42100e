"""The variant of a set of tensors: their names and shapes say everything except epsilon and activation."""

import re
from pathlib import Path

from bloodcell_jax.errors import DataError
from bloodcell_jax.models.variants import VARIANTS, Variant
from bloodcell_jax.weights.layouts import NamedWeights, our_shape


def infer_variant(path: Path, weights: NamedWeights) -> str:
    """Return the name of the variant that the tensors have the structure of.

    Raises:
      DataError: no variant has this structure.
    """
    shapes = {name: our_shape(name, tensor) for name, tensor in weights.tensors.items()}
    try:
        found = _structure(shapes, bool(weights.norm_before_pool))
    except (KeyError, IndexError) as error:
        raise DataError(
            f"{path}: not a whole ConvNeXt in {weights.layout} layout; it lacks {error}; download or write it again"
        ) from error
    for name, variant in VARIANTS.items():
        if _structure_of(variant) == found:
            return name
    depths, dims, kernel_sizes, grn, stem, _ = found
    raise DataError(
        f"{path}: no published ConvNeXt has depths {depths}, dims {dims}, kernels {kernel_sizes}, "
        f"{'GRN' if grn else 'no GRN'} and a {stem} stem; name the variant it is closest to"
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
        variant.norm_before_pool,
    )


def _structure(shapes: dict[str, tuple[int, ...]], norm_before_pool: bool) -> tuple:
    blocks = [re.match(r"stage_(\d+)/block_(\d+)/", name) for name in shapes]
    places = {(int(match[1]), int(match[2])) for match in blocks if match}
    depths = tuple(sum(stage == i for stage, _ in places) for i in range(4))
    dims = (shapes["stem_norm/scale"][0], *(shapes[f"stage_{i}/downsample_conv/bias"][0] for i in (1, 2, 3)))
    kernel_sizes = tuple(shapes[f"stage_{i}/block_0/depthwise/kernel"][0] for i in range(4))
    stem = "patch"
    if "stem_conv_0/bias" in shapes:
        stem = "overlap" if shapes["stem_conv_0/bias"][0] == dims[0] else "overlap_tiered"
    grn = "stage_0/block_0/grn/scale" in shapes
    return depths, dims, kernel_sizes, grn, stem, norm_before_pool
