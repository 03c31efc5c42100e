"""The published layouts: each is recognized by a name that only it has, and brought to our names and axes.

PyTorch stores convolutions as (out, in, h, w) and dense layers as (out, in), or as (out, in, 1, 1) if they are 1x1
convolutions. TensorFlow and Keras store them as Flax does.
"""

import re
from collections.abc import Mapping
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
      name: its name in the log and in errors.
      signature: pattern of a name that only this layout has.
      rename: takes the names in a file with their shapes, and returns our name of each; unknown names are left out.
      is_torch: the axes have PyTorch's order.
      norm_before_pool: pattern of a name that a file has only if the head's norm comes before the pooling.
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
      layout: name of the file's layout.
      tensors: our name -> tensor.
      original_names: our name -> the file's name.
      unknown: names in the file that are no part of a ConvNeXt -> shape.
      norm_before_pool: whether the file normalizes before pooling; None if it does not say.
    """

    layout: str
    tensors: dict[str, Tensor]
    original_names: dict[str, str]
    unknown: dict[str, tuple[int, ...]]
    norm_before_pool: bool | None = None


_BY_PLACE = r"(?:.*_stem|.*_stage_0_block_0_depthwise_conv)\[0\]/.*"

# The decoder of FCMAE (ConvNeXt V2's self-supervised training) is in its files too.
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


def recognize(path: Path, tensors: Mapping[str, Tensor]) -> NamedWeights:
    """Return the tensors under our names and in our axis order.

    Raises:
      DataError: the names are of no known layout, or two of them are the same tensor.
    """
    tensors = _without_prefix(tensors, "module.")
    for layout in LAYOUTS:
        if any(re.fullmatch(layout.signature, name) for name in tensors):
            return _apply(layout, path, tensors)
    if any(re.fullmatch(r"(.*\.)?blocks\.0\.(dwconv|conv_dw)\.weight", name) for name in tensors):
        raise DataError(f"{path}: an isotropic ConvNeXt, which has one stage; give a ConvNeXt with four stages")
    shown = ", ".join([*sorted(tensors)[:3], "..."])
    raise DataError(
        f"{path}: not a ConvNeXt in any known layout; its {len(tensors)} tensors are {shown}; give a published ConvNeXt"
    )


def _apply(layout: Layout, path: Path, tensors: Mapping[str, Tensor]) -> NamedWeights:
    if layout.ignored:
        tensors = {name: tensor for name, tensor in tensors.items() if not re.fullmatch(layout.ignored, name)}
    ours = layout.rename({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    named: dict[str, Tensor] = {}
    original: dict[str, str] = {}
    for theirs, our in ours.items():
        if our in original:
            raise DataError(f"{path}: {original[our]} and {theirs} are the same tensor, {our}; remove one of them")
        original[our] = theirs
        named[our] = _from_torch(np.asarray(tensors[theirs]), _rank(our)) if layout.is_torch else tensors[theirs]
    unknown = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name not in ours}
    before_pool = None
    if layout.norm_before_pool:
        before_pool = any(re.fullmatch(layout.norm_before_pool, name) for name in tensors)
    return NamedWeights(layout.name, named, original, unknown, before_pool)


def _without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> Mapping[str, Tensor]:
    if all(name.startswith(prefix) for name in tensors):
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def our_shape(name: str, tensor: Tensor) -> tuple[int, ...]:
    """Return the shape of a tensor under our name; some files store a vector with further axes of length 1."""
    shape = tuple(tensor.shape)
    if _rank(name) == 1 and sum(length != 1 for length in shape) == 1:
        return (max(shape),)
    return shape


def _rank(our_name: str) -> int:
    """Return the number of axes of one of our parameters."""
    module, _, leaf = our_name.rpartition("/")
    if leaf != "kernel":
        return 1
    return 2 if module.endswith(("expand", "project", "head")) else 4


def _from_torch(tensor: np.ndarray, rank: int) -> np.ndarray:
    """Return a view in our axis order; a tensor whose shape does not fit stays as it is, and errors show it."""
    if rank == 4 and tensor.ndim == 4:
        return tensor.transpose(2, 3, 1, 0)
    if rank == 4 and tensor.ndim in (2, 3):
        return _from_sparse(tensor)
    if rank == 2 and tensor.shape[2:] in ((), (1, 1)):
        return tensor.reshape(tensor.shape[:2]).T
    return tensor


def _from_sparse(kernel: np.ndarray) -> np.ndarray:
    """Return a sparse convolution's kernel (k*k, in, out), or depthwise (k*k, c), as (h, w, in, out).

    The k*k places run down the columns. A kernel that is not square is returned as it is.
    """
    side = round(len(kernel) ** 0.5)
    if side * side != len(kernel):
        return kernel
    inputs = kernel.shape[1] if kernel.ndim == 3 else 1
    return kernel.reshape(side, side, inputs, kernel.shape[-1]).transpose(1, 0, 2, 3)
