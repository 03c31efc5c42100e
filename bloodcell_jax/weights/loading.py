"""From a checkpoint file to a model's parameters, strictly: every tensor is there, in its shape, and none is left."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from bloodcell_jax.errors import DataError
from bloodcell_jax.models.convnext import ConvNeXt
from bloodcell_jax.weights.catalogue import NON_COMMERCIAL_LICENCES, entry_of_file, find_weights
from bloodcell_jax.weights.files import Tensor, read_file
from bloodcell_jax.weights.info import WeightsInfo, variant_info
from bloodcell_jax.weights.layouts import NamedWeights, our_shape, recognize
from bloodcell_jax.weights.safetensors_file import write_safetensors
from bloodcell_jax.weights.structure import head_classes, infer_variant

logger = logging.getLogger(__name__)

# Lines of a list of differences; the wrong variant differs in all of its hundreds of tensors.
MAX_LISTED = 100

Shapes = dict[str, tuple[int, ...]]


def load_weights(path: Path | str, model: nn.Module, *, head_key: jax.Array | None = None) -> Any:
    """Return the parameters of `model` from a checkpoint in any published layout, as float32 numpy arrays.

    The head is drawn anew, and the log says so, where the file has none or one of another number of classes. The
    final norm is drawn anew where a self-supervised V2 has neither.

    Args:
      path: a file, or a name in the catalogue, which is downloaded once.
      model: decides what is expected; it is never changed.
      head_key: draws a new head; key 0 where not given.

    Raises:
      DataError: the file cannot be read, or a tensor is missing, left over or of another shape; lists them.
    """
    path = find_weights(path)
    stored = read_file(path)
    say_licence(path, stored.info)
    weights = recognize(path, stored.tensors)
    params, fresh = fit(path, weights, model)
    if fresh:
        _say_drawn_anew(path, fresh, weights, model.num_classes)
        params |= _fresh_leaves(model, fresh, jax.random.key(0) if head_key is None else head_key)
    return unflatten_dict(params, sep="/")


def fit(path: Path, weights: NamedWeights, model: nn.Module) -> tuple[dict[str, np.ndarray], set[str]]:
    """Return what the file gives of the model's parameters, by name, and the names of those it may and does lack.

    Raises:
      DataError: anything else differs.
    """
    expected = {name: leaf.shape for name, leaf in flatten_dict(_param_shapes(model), sep="/").items()}
    fresh = _drawn_anew(weights, expected)
    tensors = {name: tensor for name, tensor in weights.tensors.items() if name not in fresh}
    _check_complete(path, weights, tensors, {name: shape for name, shape in expected.items() if name not in fresh})
    _check_order_of_pooling(path, weights, model)
    params = {name: _read(path, tensor, expected[name]) for name, tensor in tensors.items()}
    _say_untrained_norm(path, weights, params)
    return params, fresh


def read_weights_info(path: Path | str) -> WeightsInfo:
    """Return what the tensors do not say: from our metadata, else the catalogue, else inferred from shapes.

    Raises:
      DataError: the file cannot be read, or is no published ConvNeXt.
    """
    path = find_weights(path)
    stored = read_file(path)
    if stored.info is not None:
        return stored.info
    weights = recognize(path, stored.tensors)
    return inferred_info(path, weights, infer_variant(path, weights))


def inferred_info(path: Path, weights: NamedWeights, variant: str) -> WeightsInfo:
    """Return the info of a file that holds none, and log where it comes from."""
    info = variant_info(variant, head_classes(weights), source=path.name)
    entry = entry_of_file(path)
    if entry is None or entry.variant != variant:
        logger.info(
            "%s: %s by its shapes; ImageNet's mean and std are assumed, its licence is not known", path, variant
        )
        return info
    logger.info("%s: taken for %s of the catalogue, by its name", path, entry.name)
    return dataclasses.replace(
        info, mean=entry.mean, std=entry.std, input_size=entry.input_size, licence=entry.licence, source=entry.name
    )


def say_licence(path: Path, info: WeightsInfo | None) -> None:
    """Log the licence of weights that may not be used commercially, before they are used."""
    entry = entry_of_file(path)
    licence = info.licence if info else entry.licence if entry else ""
    if licence in NON_COMMERCIAL_LICENCES:
        logger.warning(
            "%s: licensed %s, which allows no commercial use; a model fine-tuned from it inherits that", path, licence
        )


def save_weights(path: Path | str, params: Any, info: WeightsInfo) -> None:
    """Write parameters and their info as safetensors, under the paths of the tree joined by `/`."""
    write_safetensors(Path(path), flatten_dict(jax.tree.map(np.asarray, params), sep="/"), info)


def _param_shapes(model: nn.Module) -> Any:
    return jax.eval_shape(lambda: _init(model, jax.random.key(0)))


def _init(model: nn.Module, key: jax.Array) -> Any:
    return model.init(key, jnp.zeros((1, 32, 32, 3)))["params"]


def _drawn_anew(weights: NamedWeights, expected: Shapes) -> set[str]:
    """Return the names of the leaves that the file may lack and that it does lack."""
    head = {name for name in expected if name.startswith("head/")}
    shapes = {name: our_shape(name, weights.tensors[name]) for name in head & weights.tensors.keys()}
    if not shapes:
        norm = {name for name in expected if name.startswith("head_norm/")}
        self_supervised = "stage_0/block_0/grn/scale" in weights.tensors and not norm & weights.tensors.keys()
        return head | norm if self_supervised else head
    bias = shapes.get("head/bias", ())
    # Another head is a whole one: the same width, another number of classes.
    other_head = {"head/kernel": (*expected["head/kernel"][:-1], *bias), "head/bias": bias}
    return head if shapes == other_head and bias != expected["head/bias"] else set()


def _check_complete(path: Path, weights: NamedWeights, tensors: dict[str, Tensor], expected: Shapes) -> None:
    found = {name: our_shape(name, tensor) for name, tensor in tensors.items()}
    lines = [f"- {name} {list(shape)}" for name, shape in expected.items() if found.get(name) != shape]
    extra = {weights.original_names[name]: shape for name, shape in found.items() if expected.get(name) != shape}
    lines += [f"+ {name} {list(shape)}" for name, shape in (extra | weights.unknown).items()]
    if len(lines) > MAX_LISTED:
        lines[MAX_LISTED:] = [f"... and {len(lines) - MAX_LISTED} more"]
    if lines:
        raise DataError(
            f"{path} ({weights.layout} layout) does not fit the model; "
            f"- is what the model needs, + what the file has instead:\n" + "\n".join(lines)
        )


def _check_order_of_pooling(path: Path, weights: NamedWeights, model: nn.Module) -> None:
    found = weights.norm_before_pool
    if found is None or not isinstance(model, ConvNeXt) or found == model.variant.norm_before_pool:
        return
    orders = {True: "before", False: "after"}
    raise DataError(
        f"{path} does not fit the model: its head normalizes {orders[found]} pooling, the model's {orders[not found]}; "
        "choose the variant it was made for"
    )


def _read(path: Path, tensor: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Read one tensor as float32, in one copy."""
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise DataError(f"{path}: a tensor of {tensor.dtype}; weights are floating-point numbers")
    try:
        return np.array(tensor, np.float32, order="C").reshape(shape)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); download or write it again") from error


def _fresh_leaves(model: nn.Module, names: set[str], key: jax.Array) -> dict[str, np.ndarray]:
    def leaves(key: jax.Array) -> dict[str, jax.Array]:
        params = flatten_dict(_init(model, key), sep="/")
        return {name: params[name] for name in names}

    # Compiled, what is not returned is never computed: the rest of the network costs nothing.
    return jax.tree.map(np.asarray, jax.jit(leaves)(key))


def _say_drawn_anew(path: Path, fresh: set[str], weights: NamedWeights, wanted: int) -> None:
    there = head_classes(weights)
    why = "there is none" if there is None else f"it is for {there} classes"
    parts = "head and final norm are" if "head_norm/scale" in fresh else "head is"
    logger.warning("%s: the %s drawn anew for %d classes; %s in the file", path, parts, wanted, why)


def _say_untrained_norm(path: Path, weights: NamedWeights, params: dict[str, np.ndarray]) -> None:
    if not weights.layout.startswith("keras") or "head_norm/scale" not in params:
        return
    if (params["head_norm/scale"] == 1).all() and not params["head_norm/bias"].any():
        logger.warning(
            "%s: its final norm was never trained, as in all of Keras' published files without the top; "
            "the file with the top has it",
            path,
        )
