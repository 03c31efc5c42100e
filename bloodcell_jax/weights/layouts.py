"""The published layouts: each is recognized by a name that only it has, and brought to our names and axes.

PyTorch stores convolutions as (out, in, h, w) and dense layers as (out, in), or as (out, in, 1, 1) if they are 1x1
convolutions. TensorFlow and Keras store them as Flax does.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bloodcell_jax.errors import DataError
from bloodcell_jax.weights import keras_naming, naming
from bloodcell_jax.weights.calibration import PREFIX
from bloodcell_jax.weights.files import StoredWeights
from bloodcell_jax.weights.parts import choose_prefix, find_prefixes, part_name, without_wrappers


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
      outer_head: takes the shapes of the tensors beside a network that is one layer of a model, and returns our names
        of the head among them.
      hides_order: the names are the same wherever the head's norm stands.
    """

    name: str
    signature: str
    rename: naming.Rename
    is_torch: bool = True
    norm_before_pool: str | None = None
    ignored: str | None = None
    outer_head: naming.Rename | None = None
    hides_order: bool = False


@dataclass(frozen=True)
class NamedWeights:
    """A file's tensors under our names and in our axis order.

    Attributes:
      layout: name of the file's layout.
      tensors: our name -> tensor.
      original_names: our name -> the file's name.
      unknown: names in the file that are no part of a ConvNeXt -> shape.
      norm_before_pool: whether the file normalizes before pooling; None if it does not say.
      hides_order: whether the file has a head and could have its norm on either side of the pooling.
      prefix: what stands before the names of the network in the file.
      wrappers: modules inside the names that were taken off.
      others: prefixes of the other networks in the file.
      outside: names in the file that are not behind the prefix, and are left out.
    """

    layout: str
    tensors: dict[str, np.ndarray]
    original_names: dict[str, str]
    unknown: dict[str, tuple[int, ...]]
    norm_before_pool: bool | None = None
    hides_order: bool = False
    prefix: str = ""
    wrappers: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()


_BY_PLACE = r"(?:.*_stem|.*_stage_0_block_0_depthwise_conv)\[0\]/.*"

# The decoder of FCMAE (ConvNeXt V2's self-supervised training) is in its files too.
_FCMAE_DECODER = r"(?:decoder|proj|pred)\..*|.*mask_token"

# Backbones of detectors normalize each stage's output for their own use. DINOv3 has its final norm under a second name.
_STAGE_NORMS = r"norm[0-3]\..*|norms\.\d+\..*|hidden_states_norms\..*"

# The states of optimizer, metrics and random layers that Keras saves with a model.
_KERAS_STATES = r"(?:optimizer|metrics|compile_metrics|_?loss_tracker)/.*|(?:.*/)?seed_generator/.*"

LAYOUTS = (
    Layout(
        "bloodcell_jax",
        r"stem_conv(?:_0)?/kernel",
        lambda shapes: {name: name for name in shapes},
        is_torch=False,
        ignored=f"{PREFIX}.*",
    ),
    Layout("timm", r"stages\.0\.blocks\.0\.conv_dw\.weight", naming.rename_timm, norm_before_pool=r"norm_pre\.weight"),
    Layout(
        "facebook",
        r"(?:encoder\.)?downsample_layers\.0\.0\.(?:weight|kernel)",
        naming.rename_by(naming.FACEBOOK),
        ignored=f"{_FCMAE_DECODER}|{_STAGE_NORMS}",
    ),
    Layout("torchvision", r"features\.0\.0\.weight", naming.rename_by(naming.TORCHVISION)),
    Layout(
        "hugging face",
        r"(?:convnext(?:v2)?\.)?embeddings\.patch_embeddings\.weight",
        naming.rename_by(naming.HUGGING_FACE),
        ignored=_STAGE_NORMS,
    ),
    Layout(
        "hugging face dinov3",
        r"(?:dinov3_convnext\.)?(?:(?:model|encoder)\.)?stages\.0\.downsample_layers\.0\.weight",
        naming.rename_by(naming.HUGGING_FACE_DINOV3),
    ),
    Layout(
        "hugging face tensorflow",
        r".*/embeddings/patch_embeddings/kernel:0",
        naming.rename_by(naming.HUGGING_FACE),
        is_torch=False,
    ),
    Layout("keras", _BY_PLACE, naming.rename_by(keras_naming.KERAS), is_torch=False),
    Layout(
        "keras numbered",
        r"layers/sequential/layers/conv2d/vars/0",
        keras_naming.rename_numbered,
        is_torch=False,
        ignored=_KERAS_STATES,
        outer_head=keras_naming.outer_head,
        hides_order=True,
    ),
)


def recognize(path: Path, stored: StoredWeights, part: str | None = None) -> NamedWeights:
    """Return the tensors under our names and in our axis order.

    Args:
      path: the file, for messages.
      stored: its content.
      part: the part of the file that the user asked for; None: the only network, or the preferred one.

    Raises:
      DataError: the names are of no known layout, nothing says which of several networks is meant, or two names are the
        same tensor.
    """
    tensors, wrappers = without_wrappers(stored.tensors)
    found = find_prefixes(tensors, [layout.signature for layout in LAYOUTS])
    if not found:
        raise _not_recognized(path, tensors)
    prefix = choose_prefix(path, list(found), part)
    others = tuple(other for other in found if other != prefix)
    layout = LAYOUTS[found[prefix]]
    inside, outside = _divide(tensors, prefix, others, layout.ignored)
    head = layout.outer_head(_shapes(outside)) if layout.outer_head and part is None else {}
    named = _apply(layout, path, inside, {name: (outside.pop(name), our) for name, our in head.items()}, prefix)
    asks_order = layout.hides_order and "head/kernel" in named.tensors
    order = _described_order(path, stored.last_layers, prefix) if asks_order else named.norm_before_pool
    return replace(
        named,
        norm_before_pool=order,
        hides_order=asks_order and order is None,
        prefix=prefix,
        wrappers=wrappers,
        others=others,
        outside=tuple(sorted(outside)),
    )


def _described_order(path: Path, last_layers: tuple[str, ...], prefix: str) -> bool | None:
    """Return whether the described norm comes before the pooling; None if nothing is described."""
    if last_layers and last_layers not in keras_naming.NORM_BEFORE_POOL:
        alone = f"take the network alone by {path}#{part_name(prefix)}" if prefix else "save it without its head"
        raise DataError(f"{path}: its last layers are {', '.join(last_layers)}, which no variant computes; {alone}")
    return keras_naming.NORM_BEFORE_POOL.get(last_layers)


def _not_recognized(path: Path, tensors: Mapping[str, np.ndarray]) -> DataError:
    if any(re.fullmatch(r"(?!.*stages\.)(.*\.)?blocks\.0\.(dwconv|conv_dw)\.weight", name) for name in tensors):
        return DataError(f"{path}: an isotropic ConvNeXt, which has one stage; give a ConvNeXt with four stages")
    shown = ", ".join([*sorted(tensors)[:3], "..."])
    return DataError(
        f"{path}: not a ConvNeXt in any known layout; its {len(tensors)} tensors are {shown}; give a published ConvNeXt"
    )


def _divide(
    tensors: Mapping[str, np.ndarray], prefix: str, others: tuple[str, ...], ignored: str | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the tensors of a network, without its prefix, and those of none, without what is ignored in both."""
    # Another network may lie inside this one's prefix, but not the other way round.
    nested = tuple(other for other in others if other.startswith(prefix))
    inside, outside = {}, {}
    for name, tensor in tensors.items():
        is_inside = name.startswith(prefix) and not name.startswith(nested)
        place, name = (inside, name.removeprefix(prefix)) if is_inside else (outside, name)
        if (is_inside or not name.startswith(others)) and not (ignored and re.fullmatch(ignored, name)):
            place[name] = tensor
    return inside, outside


def _apply(
    layout: Layout,
    path: Path,
    tensors: dict[str, np.ndarray],
    head: dict[str, tuple[np.ndarray, str]],
    prefix: str,
) -> NamedWeights:
    ours = layout.rename(_shapes(tensors))
    named: dict[str, np.ndarray] = {}
    original: dict[str, str] = {}
    entries = [(prefix + theirs, tensors[theirs], our) for theirs, our in ours.items()]
    for theirs, tensor, our in [*entries, *((name, *entry) for name, entry in head.items())]:
        if our in original:
            raise DataError(f"{path}: {original[our]} and {theirs} are the same tensor, {our}; remove one of them")
        original[our] = theirs
        named[our] = _from_torch(np.asarray(tensor), _rank(our)) if layout.is_torch else tensor
    unknown = {prefix + name: shape for name, shape in _shapes(tensors).items() if name not in ours}
    before_pool = None
    if layout.norm_before_pool:
        before_pool = any(re.fullmatch(layout.norm_before_pool, name) for name in tensors)
    return NamedWeights(layout.name, named, original, unknown, before_pool)


def _shapes(tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def our_shape(name: str, tensor: np.ndarray) -> tuple[int, ...]:
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
