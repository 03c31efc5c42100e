"""From a checkpoint file to a model's parameters, strictly: no tensor is missing, left over or of another shape."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from bloodcell_jax.errors import DataError
from bloodcell_jax.models.convnext import ConvNeXt
from bloodcell_jax.models.network import Network, leaves_by_path
from bloodcell_jax.models.registry import init_params, param_shapes
from bloodcell_jax.weights.catalog import NON_COMMERCIAL_LICENSES, entry_of_file, find_part
from bloodcell_jax.weights.files import read_file
from bloodcell_jax.weights.info import WeightsInfo, variant_info
from bloodcell_jax.weights.layouts import NamedWeights, our_shape, recognize
from bloodcell_jax.weights.parts import part_name
from bloodcell_jax.weights.safetensors_file import write_safetensors
from bloodcell_jax.weights.structure import head_classes, infer_variant

logger = logging.getLogger(__name__)

# A list of differences has at most so many lines: the wrong variant differs in all of its hundreds of tensors.
MAX_LISTED = 100

# Parameters do not depend on the size of the images; this is the smallest that every network takes, in pixels.
_IMAGE_SIZE = 32

Shapes = dict[str, tuple[int, ...]]


def load_weights(
    path: Path | str, model: Network, *, head_key: jax.Array | None = None, class_names: Sequence[str] = ()
) -> Any:
    """Load the parameters of `model` from a checkpoint in any published layout, as float32 NumPy arrays.

    If the file has no head, or a head for another number of classes, the head is drawn anew and the log says so. If it
    has neither head nor final norm, as a self-supervised V2, both are drawn anew. If the file names its classes and
    `class_names` is given, each class gets the head's row of its name, and only classes that the file lacks are drawn.

    Args:
      path: a file, the workdir of a finished run, or a name that `find_weights` knows (pbc_cnn); `PATH#NAME` takes
        the network under a name if the file holds several.
      model: the network, which decides the expected parameters; it is never changed.
      head_key: draws a new head; None: key 0.
      class_names: the model's classes in label order; empty: they are not known.

    Returns:
      The parameters as nested dicts.

    Raises:
      DataError: the file cannot be read, or tensors are missing, left over or of another shape; lists them.
    """
    path, part = find_part(path)
    stored = read_file(path)
    say_license(path, stored.info)
    weights = recognize(path, stored, part)
    say_part(path, weights)
    named = stored.info.class_names if stored.info and class_names else ()
    if len(named) == head_classes(weights) and list(named) != list(class_names):
        params = _with_rows_by_name(path, weights, model, named, class_names, head_key)
        return unflatten_dict(params, sep="/")
    params, fresh = fit(path, weights, model)
    if fresh:
        _say_drawn_anew(path, fresh, weights, model.num_classes)
        params |= _fresh_leaves(model, fresh, jax.random.key(0) if head_key is None else head_key)
    return unflatten_dict(params, sep="/")


def fit(path: Path, weights: NamedWeights, model: Network) -> tuple[dict[str, np.ndarray], set[str]]:
    """Return the model's parameters that the file has, by name, and the names of those that it lacks but may lack.

    Args:
      path: the file, for messages.
      weights: its tensors.
      model: the network, which decides the expected parameters.

    Raises:
      DataError: there is any other difference.
    """
    expected = _expected_shapes(model)
    fresh = _drawn_anew(weights, expected)
    tensors = {name: tensor for name, tensor in weights.tensors.items() if name not in fresh}
    _check_complete(path, weights, tensors, {name: shape for name, shape in expected.items() if name not in fresh})
    _check_order_of_pooling(path, weights, model)
    params = {name: _read(path, tensor, expected[name]) for name, tensor in tensors.items()}
    _say_untrained_norm(path, weights, params)
    return params, fresh


def read_weights_info(path: Path | str, variant: str | None = None) -> WeightsInfo:
    """Return the facts that the tensors do not say.

    They come from our metadata in the file; otherwise from the catalog, by the file's name; otherwise they are inferred
    from the shapes.

    Args:
      path: a file, the workdir of a finished run, or a name; see `load_weights`.
      variant: the variant that the user named; it decides where the file's tensors fit two.

    Raises:
      DataError: the file cannot be read, is no published ConvNeXt, or fits two variants and none is named.
    """
    path, part = find_part(path)
    stored = read_file(path)
    if stored.info is not None:
        return stored.info
    weights = recognize(path, stored, part)
    return inferred_info(path, weights, infer_variant(path, weights, variant))


def inferred_info(path: Path, weights: NamedWeights, variant: str) -> WeightsInfo:
    """Return the info of a file that holds none, and log its origin."""
    info = variant_info(variant, head_classes(weights), source=path.name)
    entry = entry_of_file(path)
    if entry is None or entry.variant != variant:
        logger.info(
            "%s: %s by its shapes; ImageNet's mean and std are assumed, its license is not known", path, variant
        )
        return info
    logger.info("%s: taken for %s of the catalog, by its name", path, entry.name)
    return dataclasses.replace(
        info, mean=entry.mean, std=entry.std, input_size=entry.input_size, licence=entry.licence, source=entry.name
    )


def say_license(path: Path, info: WeightsInfo | None) -> None:
    """Warn of a license that allows no commercial use, before the weights are used."""
    entry = entry_of_file(path)
    name = info.licence if info else entry.licence if entry else ""
    if name in NON_COMMERCIAL_LICENSES:
        logger.warning(
            "%s: licensed %s, which allows no commercial use; a model fine-tuned from it inherits that", path, name
        )


def say_part(path: Path, weights: NamedWeights) -> None:
    """Log which part of the file is taken, if there is more, and how to ask for another."""
    if weights.prefix:
        logger.info("%s: the network's names begin with %s, which is taken off", path, weights.prefix)
    if weights.wrappers:
        logger.info("%s: %s is taken off the names inside the network", path, ", ".join(weights.wrappers))
    if weights.others:
        logger.warning(
            "%s: holds several networks; %s is taken; ask for another by %s",
            path,
            part_name(weights.prefix) or "the one without a prefix",
            " or ".join(f"{path}#{part_name(other)}" for other in weights.others),
        )
    if weights.outside:
        shown = ", ".join([*weights.outside[:3], *(["..."] if len(weights.outside) > 3 else [])])
        logger.warning("%s: %d tensors beside the network are left out: %s", path, len(weights.outside), shown)


def save_weights(path: Path | str, params: Any, info: WeightsInfo) -> None:
    """Write parameters and their info as safetensors.

    Args:
      path: the file; an existing one is replaced.
      params: nested dicts of arrays; a tensor's name is its path in the tree, joined by `/`.
      info: the facts that the tensors do not say.

    Raises:
      MachineError: the file cannot be written.
    """
    write_safetensors(Path(path), leaves_by_path(jax.tree.map(np.asarray, params)), info)


def _expected_shapes(model: Network) -> Shapes:
    """Return the shapes of the model's parameters by name; nothing is computed."""
    return {name: leaf.shape for name, leaf in leaves_by_path(param_shapes(model, _IMAGE_SIZE)).items()}


def _drawn_anew(weights: NamedWeights, expected: Shapes) -> set[str]:
    """Return the names of the parameters that the file lacks and may lack."""
    head = {name for name in expected if name.startswith("head/")}
    shapes = {name: our_shape(name, weights.tensors[name]) for name in head & weights.tensors.keys()}
    if not shapes:
        norm = {name for name in expected if name.startswith("head_norm/")}
        return head if norm & weights.tensors.keys() else head | norm
    bias = shapes.get("head/bias", ())
    # Another head is whole and has the same width, but another number of classes.
    other_head = {"head/kernel": (*expected["head/kernel"][:-1], *bias), "head/bias": bias}
    return head if shapes == other_head and bias != expected["head/bias"] else set()


def _with_rows_by_name(
    path: Path,
    weights: NamedWeights,
    model: Network,
    named: Sequence[str],
    wanted: Sequence[str],
    head_key: jax.Array | None,
) -> dict[str, np.ndarray]:
    """Return the parameters by name; each of the `wanted` classes has the head's row of the class `named` like it."""
    head = {name: np.array(tensor, np.float32) for name, tensor in weights.tensors.items() if name.startswith("head/")}
    without = {name: tensor for name, tensor in weights.tensors.items() if name not in head}
    params, fresh = fit(path, dataclasses.replace(weights, tensors=without), model)
    drawn = _fresh_leaves(model, fresh, jax.random.key(0) if head_key is None else head_key)
    rows = rows_by_name(named, wanted)
    to, of = [i for i, row in enumerate(rows) if row is not None], [row for row in rows if row is not None]
    for name, values in head.items():
        drawn[name] = np.array(drawn[name])
        drawn[name][..., to] = values[..., of]
    _say_rows(path, named, wanted, rows)
    return params | drawn


def rows_by_name(named: Sequence[str], wanted: Sequence[str]) -> list[int | None]:
    """Return the place of each of the `wanted` classes among those `named`, in any case; None: it is not there."""
    places = {name.casefold(): place for place, name in enumerate(named)}
    return [places.get(name.casefold()) for name in wanted]


def _check_complete(path: Path, weights: NamedWeights, tensors: dict[str, np.ndarray], expected: Shapes) -> None:
    found = {name: our_shape(name, tensor) for name, tensor in tensors.items()}
    lines = [f"- {name} {list(shape)}" for name, shape in expected.items() if found.get(name) != shape]
    extra = {weights.original_names[name]: shape for name, shape in found.items() if expected.get(name) != shape}
    lines += [f"+ {name} {list(shape)}" for name, shape in (extra | weights.unknown).items()]
    if len(lines) > MAX_LISTED:
        lines[MAX_LISTED:] = [f"... and {len(lines) - MAX_LISTED} more"]
    if lines:
        raise DataError(
            f"{path} ({weights.layout} layout) does not fit the model; choose the variant it was made for; "
            "- marks what the model needs, + what the file has instead:",
            lines,
        )


def _check_order_of_pooling(path: Path, weights: NamedWeights, model: Network) -> None:
    found = weights.norm_before_pool
    if weights.hides_order and isinstance(model, ConvNeXt):
        logger.warning(
            "%s: does not say where its final norm stands; taken to stand %s the pooling, as in the model's variant",
            path,
            "before" if model.variant.norm_before_pool else "after",
        )
    if found is None or not isinstance(model, ConvNeXt) or found == model.variant.norm_before_pool:
        return
    orders = {True: "before", False: "after"}
    raise DataError(
        f"{path}: does not fit the model: its head normalizes {orders[found]} pooling, the model's "
        f"{orders[not found]}; choose the variant it was made for"
    )


def _read(path: Path, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Read one tensor as float32; this makes the only copy."""
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise DataError(f"{path}: a tensor of {tensor.dtype}; give weights of floating-point numbers")
    try:
        return np.array(tensor, np.float32, order="C").reshape(shape)
    except (OSError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read ({error}); download or write it again") from error


def _fresh_leaves(model: Network, names: set[str], key: jax.Array) -> dict[str, np.ndarray]:
    """Return newly drawn parameters by name."""

    def leaves(key: jax.Array) -> dict[str, jax.Array]:
        params = leaves_by_path(init_params(model, key, _IMAGE_SIZE))
        return {name: params[name] for name in names}

    # A compiled function never computes values that it does not return, so the rest of the network costs nothing.
    return jax.tree.map(np.asarray, jax.jit(leaves)(key))


def _say_drawn_anew(path: Path, fresh: set[str], weights: NamedWeights, wanted: int) -> None:
    there = head_classes(weights)
    why = "the file has none" if there is None else f"the file's is for {there} classes"
    parts = "head and final norm are" if "head_norm/scale" in fresh else "head is"
    logger.warning("%s: the %s drawn anew for %d classes; %s", path, parts, wanted, why)


def _say_rows(path: Path, named: Sequence[str], wanted: Sequence[str], rows: Sequence[int | None]) -> None:
    taken = [name for name, row in zip(wanted, rows, strict=True) if row is not None]
    drawn = [name for name, row in zip(wanted, rows, strict=True) if row is None]
    unused = [name for place, name in enumerate(named) if place not in rows]
    logger.warning(
        "%s: rows of the head by class name: taken over %s; drawn anew %s; left behind %s",
        path,
        *(", ".join(names) or "none" for names in (taken, drawn, unused)),
    )


def _say_untrained_norm(path: Path, weights: NamedWeights, params: dict[str, np.ndarray]) -> None:
    if not weights.layout.startswith("keras") or "head_norm/scale" not in params:
        return
    if (params["head_norm/scale"] == 1).all() and not params["head_norm/bias"].any():
        logger.warning(
            "%s: its final norm was never trained, as in all of Keras' published files without the top; "
            "the file with the top has a trained one",
            path,
        )
