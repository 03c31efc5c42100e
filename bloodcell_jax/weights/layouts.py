"""The published layouts, told apart by a name that only one of them has, and brought to our names and axes.

torch stores convolutions as (out, in, h, w) and dense layers as (out, in), or (out, in, 1, 1) where they are 1x1
convolutions; TensorFlow and Keras store them as Flax does.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bloodcell_jax.errors import DataError
from bloodcell_jax.weights import keras_naming, naming
from bloodcell_jax.weights.files import Tensor


@dataclass(frozen=True)
class Layout:
    """One way of naming and storing the tensors of a ConvNeXt.

    Attributes:
      name: as the log and errors call it.
      signature: pattern of a name that only this layout has.
      rename: our name of each of its names, given those and their shapes; what it does not know is left out.
      is_torch: axes are ordered as torch does.
      norm_before_pool: pattern of a name that only files with the head's norm before the pooling have.
      ignored: pattern of names that are no part of the network.
    """

    name: str
    signature: str
    rename: naming.Rename
    is_torch: bool = True
    norm_before_pool: str | None = None
    ignored: str | None = None


@dataclass(frozen=True)
class NamedWeights:
    """A file's tensors under our names and in our axis order.

    Attributes:
      layout: name of the layout they came in.
      tensors: by our name.
      original_names: the file's own, by ours.
      unknown: names in the file that are no part of a ConvNeXt, with their shapes.
      norm_before_pool: whether the file normalizes before pooling; None where it does not say.
    """

    layout: str
    tensors: dict[str, Tensor]
    original_names: dict[str, str]
    unknown: dict[str, tuple[int, ...]]
    norm_before_pool: bool | None = None


_BY_PLACE = r"(?:.*_stem|.*_stage_0_block_0_depthwise_conv)\[0\]/.*"

# What the decoder of FCMAE (ConvNeXt V2's self-supervised training) leaves in its files.
_FCMAE_DECODER = r"(?:decoder|proj|pred)\..*|.*mask_token"

LAYOUTS = (
    Layout("bloodcell_jax", r"stem_conv(?:_0)?/kernel", lambda shapes: {name: name for name in shapes}, is_torch=False),
    Layout("timm", r"stem\.2\.weight", naming.rename_by(naming.TIMM_OVERLAP), norm_before_pool=r"norm_pre\.weight"),
    Layout(
        "timm",
        r"stages\.0\.blocks\.0\.conv_dw\.weight",
        naming.rename_by(naming.TIMM),
        norm_before_pool=r"norm_pre\.weight",
    ),
    Layout(
        "facebook",
        r"(?:encoder\.)?downsample_layers\.0\.0\.(?:weight|kernel)",
        naming.rename_by(naming.FACEBOOK),
        ignored=_FCMAE_DECODER,
    ),
    Layout("torchvision", r"features\.0\.0\.weight", naming.rename_by(naming.TORCHVISION)),
    Layout(
        "hugging face",
        r"(?:convnext(?:v2)?\.)?embeddings\.patch_embeddings\.weight",
        naming.rename_by(naming.HUGGING_FACE),
    ),
    Layout(
        "hugging face tensorflow",
        r".*/embeddings/patch_embeddings/kernel:0",
        naming.rename_by(naming.HUGGING_FACE),
        is_torch=False,
    ),
    Layout("keras", _BY_PLACE, naming.rename_by(keras_naming.KERAS), is_torch=False),
    Layout("keras numbered", r"layers/sequential/layers/conv2d/vars/0", keras_naming.rename_numbered, is_torch=False),
)


def recognize(path: Path, tensors: dict[str, Tensor]) -> NamedWeights:
    """Return the tensors under our names.

    Raises:
      DataError: no known layout.
    """
    tensors = _without_prefix(tensors, "module.")
    for layout in LAYOUTS:
        if any(re.fullmatch(layout.signature, name) for name in tensors):
            return _apply(layout, path, tensors)
    if any(re.fullmatch(r"(.*\.)?blocks\.0\.(dwconv|conv_dw)\.weight", name) for name in tensors):
        raise DataError(f"{path}: an isotropic ConvNeXt, whose single stage is another architecture; use one of four")
    shown = ", ".join([*sorted(tensors)[:3], "..."])
    raise DataError(f"{path}: not a ConvNeXt in any known layout; its {len(tensors)} tensors are {shown}")


def _apply(layout: Layout, path: Path, tensors: dict[str, Tensor]) -> NamedWeights:
    if layout.ignored:
        tensors = {name: tensor for name, tensor in tensors.items() if not re.fullmatch(layout.ignored, name)}
    ours = layout.rename({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    named, original = {}, {}
    for theirs, our in ours.items():
        if our in original:
            raise DataError(f"{path}: {original[our]} and {theirs} are the same tensor, {our}")
        original[our] = theirs
        named[our] = _from_torch(tensors[theirs], _rank(our)) if layout.is_torch else tensors[theirs]
    unknown = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name not in ours}
    before_pool = None
    if layout.norm_before_pool:
        before_pool = any(re.fullmatch(layout.norm_before_pool, name) for name in tensors)
    return NamedWeights(layout.name, named, original, unknown, before_pool)


def _without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    if all(name.startswith(prefix) for name in tensors):
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def our_shape(name: str, tensor: Tensor) -> tuple[int, ...]:
    """Return the shape of a tensor under our name; vectors are also stored with axes of length 1 around them."""
    shape = tuple(tensor.shape)
    if _rank(name) == 1 and sum(length != 1 for length in shape) == 1:
        return (max(shape),)
    return shape


def _rank(our_name: str) -> int:
    """Return the number of axes of a parameter of ours."""
    module, _, leaf = our_name.rpartition("/")
    if leaf != "kernel":
        return 1
    return 2 if module.endswith(("expand", "project", "head")) else 4


def _from_torch(tensor: np.ndarray, rank: int) -> np.ndarray:
    """Return a view in our axis order; of a shape that does not fit, the tensor itself, for the comparison to show."""
    if rank == 4 and tensor.ndim == 4:
        return tensor.transpose(2, 3, 1, 0)
    if rank == 4 and tensor.ndim in (2, 3):
        return _from_sparse(tensor)
    if rank == 2 and tensor.shape[2:] in ((), (1, 1)):
        return tensor.reshape(tensor.shape[:2]).T
    return tensor


def _from_sparse(kernel: np.ndarray) -> np.ndarray:
    """Turn a sparse convolution's kernel (k*k, in, out), depthwise (k*k, c), whose places run down the columns."""
    side = round(len(kernel) ** 0.5)
    if side * side != len(kernel):
        return kernel
    inputs = kernel.shape[1] if kernel.ndim == 3 else 1
    return kernel.reshape(side, side, inputs, kernel.shape[-1]).transpose(1, 0, 2, 3)
